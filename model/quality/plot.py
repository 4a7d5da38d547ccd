"""Draws frontier.json as frontier.svg: divergence against bits, both axes as they are and logarithmic.

usage: plot.py frontier.json frontier.svg
"""
import json
import math
import sys
from pathlib import Path

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 460, 70, 190, 20, 50
COLORS = {
    "llama.cpp": "#777777",
    "glm": "#1f6fb4",
    "glm, calibrated": "#c23b22",
    "glm, calibrated with its own text": "#2c8a4b",
}
BITS, KL = (4.0, 9.0), (0.0005, 1.0)


def place(bits, kl):
    x = LEFT + (bits - BITS[0]) / (BITS[1] - BITS[0]) * (WIDTH - LEFT - RIGHT)
    part = (math.log(kl) - math.log(KL[0])) / (math.log(KL[1]) - math.log(KL[0]))
    return x, HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)


def text(x, y, words, anchor="start", color="#222222"):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}">{words}</text>'


def main():
    points = json.loads(Path(sys.argv[1]).read_text())["points"]
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
    ]
    for kl in [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0]:
        (x, y), (end, _) = place(BITS[0], kl), place(BITS[1], kl)
        out.append(f'<path d="M{x:.1f} {y:.1f}H{end:.1f}" stroke="#dddddd"/>{text(x - 6, y + 4, kl, "end")}')
    for bits in range(4, 10):
        (x, y), (_, top) = place(bits, KL[0]), place(bits, KL[1])
        out.append(f'<path d="M{x:.1f} {y:.1f}V{top:.1f}" stroke="#dddddd"/>{text(x, y + 18, bits, "middle")}')
    out.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, "bits of a weight", "middle"))
    out.append(text(8, 14, "KL divergence from f16, nats a token"))
    for line, (name, color) in enumerate(COLORS.items()):
        y = TOP + 20 + 18 * line
        out.append(f'<circle cx="{WIDTH - RIGHT + 16}" cy="{y - 4}" r="4" fill="{color}"/>')
        out.append(text(WIDTH - RIGHT + 26, y, name.replace(" with its own", ", own"), color=color))
    for point in points:
        x, y = place(point["bits"], max(point["kl"], KL[0]))
        label = f'{point["by"]}: {point["format"]}, {point["bits"]} bits, {point["kl"]:.4f}'
        out.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{COLORS[point["by"]]}"><title>{label}</title></circle>')
        if point["by"] == "llama.cpp":
            out.append(text(x + 6, y - 5, point["format"], color=COLORS["llama.cpp"]))
    out.append("</svg>")
    Path(sys.argv[2]).write_text("\n".join(out) + "\n")


main()
