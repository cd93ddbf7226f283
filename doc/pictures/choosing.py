"""The flowchart of the page on choosing."""

import matplotlib.pyplot as plt

BOXES = {  # place, words, whether it is an answer
    "start": (5.0, 9.4, "What is it for?", False),
    "map": (1.7, 7.4, "a map, a cost,\na generator", False),
    "pairs": (5.0, 7.4, "pairs for\nflow matching", False),
    "exact": (8.3, 7.4, "transport without\nregularisation", False),
    "one": (1.7, 5.3, "reg = 0.01 * cost_scale(atoms)\ntol = 0.1", True),
    "coupling": (5.0, 5.3, "solve_coupling(data)\nreg = 0, tol = 0.55", True),
    "ties": (8.3, 5.3, "Do source points tie:\nfew points, flat areas?", False),
    "zero": (9.1, 3.2, "reg = 0\ntol = 0.1", True),
    "small": (6.6, 3.2, "reg = 0.001 *\ncost_scale(atoms)", True),
    "slow": (1.7, 3.2, "too slow: reg 10%, tol 0.2,\nfloat32, a GPU", True),
    "blurred": (4.3, 3.2, "too blurred:\nreg 0.1% to 0.3%", True),
    "memory": (5.0, 1.1, "atoms that do not fit: StoredAtoms; a run of hours: verbose=True", True),
}
ARROWS = [
    ("start", "map", ""),
    ("start", "pairs", ""),
    ("start", "exact", ""),
    ("map", "one", ""),
    ("pairs", "coupling", ""),
    ("exact", "ties", ""),
    ("ties", "zero", "no"),
    ("ties", "small", "yes"),
    ("one", "slow", ""),
    ("one", "blurred", ""),
]
figure, axis = plt.subplots(figsize=(10, 6.4), layout="constrained")
axis.set(xlim=(0, 10), ylim=(0.5, 10))
axis.axis("off")
for here, there, words in ARROWS:
    (x, y, *_), (x_end, y_end, *_) = BOXES[here], BOXES[there]
    style = {"arrowstyle": "->", "color": "0.4"}
    axis.annotate("", (x_end, y_end + 0.55), (x, y - 0.5), arrowprops=style)
    axis.text((x + x_end) / 2 + 0.1, (y + y_end) / 2, words, color="0.3")
for x, y, words, is_answer in BOXES.values():
    color = "#dff0d8" if is_answer else "#e4ecf7"
    style = {"boxstyle": "round,pad=0.5", "facecolor": color, "edgecolor": "0.6"}
    axis.text(x, y, words, ha="center", va="center", bbox=style)
