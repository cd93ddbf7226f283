"""The experiments of Houdard, Leclaire, Papadakis and Rabin (arXiv:2102.05542), with their settings.

These are those of the scripts that the authors published, github.com/ahoudard/SDOT, branch dev-tmlr.
"""
