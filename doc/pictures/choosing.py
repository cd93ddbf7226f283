"""The flowchart of the page on choosing."""

import matplotlib.pyplot as plt

BOXES = {  # place, words, whether it is an answer
    "start": (5.0, 4.5, "What is it for?", False),
    "map": (1.7, 3.4, "a map, a cost,\na generator", False),
    "pairs": (5.0, 3.4, "pairs for\nflow matching", False),
    "exact": (8.3, 3.4, "transport without\nregularisation", False),
    "one": (1.7, 2.2, "reg = 0.01 * cost_scale(atoms)\ntol = 0.1", True),
    "coupling": (5.0, 2.2, "solve_coupling(data)\nreg = 0, tol = 0.55", True),
    "ties": (8.3, 2.2, "Do source points tie:\nfew points, flat areas?", False),
    "slow": (1.2, 0.9, "too slow: reg 10%,\ntol 0.2, float32, a GPU", True),
    "blurred": (3.9, 0.9, "too blurred:\nreg 0.1% to 0.3%", True),
    "small": (6.7, 0.9, "yes: reg = 0.001 *\ncost_scale(atoms)", True),
    "zero": (9.1, 0.9, "no: reg = 0\ntol = 0.1", True),
}
ARROWS = [
    ("start", "map"),
    ("start", "pairs"),
    ("start", "exact"),
    ("map", "one"),
    ("pairs", "coupling"),
    ("exact", "ties"),
    ("one", "slow"),
    ("one", "blurred"),
    ("ties", "small"),
    ("ties", "zero"),
]
figure, axis = plt.subplots(figsize=(9.5, 4.6), layout="constrained")
axis.set(xlim=(0, 10), ylim=(0.4, 4.8))
axis.axis("off")
drawn = {}
for name, (x, y, words, is_answer) in BOXES.items():
    color = "#dff0d8" if is_answer else "#e4ecf7"
    style = {"boxstyle": "round,pad=0.5", "facecolor": color, "edgecolor": "0.6"}
    drawn[name] = axis.text(x, y, words, ha="center", va="center", bbox=style, fontsize=11)
figure.canvas.draw()  # boxes have a size then
for here, there in ARROWS:
    (x, y, *_), (x_end, y_end, *_) = BOXES[here], BOXES[there]
    ends = [drawn[name].get_bbox_patch() for name in (here, there)]
    style = {"arrowstyle": "->", "color": "0.4", "patchA": ends[0], "patchB": ends[1]}
    axis.annotate("", (x_end, y_end), (x, y), arrowprops=style | {"shrinkA": 0, "shrinkB": 2})
