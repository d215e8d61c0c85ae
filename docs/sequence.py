"""Draw docs/pictures/request.svg, the sequence diagram of one request: python docs/sequence.py"""

from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

OUT: Final = Path(__file__).parent / "pictures" / "request.svg"
PARTICIPANTS: Final = ("client", "server", "Redis", "payload store", "worker")
CLIENT, SERVER, REDIS, STORE, WORKER = range(5)
STEPS: Final = (
    (CLIENT, SERVER, "Visualize(spec, request_id)"),
    (SERVER, SERVER, "validate against the model card"),
    (SERVER, STORE, "put images"),
    (SERVER, REDIS, "submit.lua: record, message"),
    (SERVER, CLIENT, "job QUEUED"),
    (WORKER, REDIS, "claim.lua: jobs in fair order, lease, token"),
    (WORKER, STORE, "get images"),
    (WORKER, WORKER, "decode, batch, compute all maps"),
    (WORKER, STORE, "put result: arrays, header"),
    (WORKER, REDIS, "finish.lua, with the token: SUCCEEDED"),
    (REDIS, SERVER, "Pub/Sub: “finished”"),
    (SERVER, STORE, "read header and chunks"),
    (SERVER, CLIENT, "result: header and chunks"),
    (CLIENT, CLIENT, "check CRC-32, fill arrays"),
)
"""From, to and label of each arrow."""
LEFT, COLUMN, TOP, ROW = 100, 236, 64, 44
WIDTH: Final = LEFT * 2 + COLUMN * (len(PARTICIPANTS) - 1) + 60
HEIGHT: Final = TOP + ROW * (len(STEPS) + 1)


def text(x: float, y: float, label: str, anchor: str = "middle", weight: str = "normal") -> str:
    """Return the SVG of a label at a position."""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-weight="{weight}">{escape(label)}</text>'


def arrow(number: int, source: int, target: int, label: str) -> str:
    """Return the SVG of one step: an arrow between two lifelines, or a box on one."""
    y, x = TOP + ROW * (number + 1), LEFT + COLUMN * source
    if source == target:
        width = 8.6 * len(label)
        left = min(max(x - width / 2, 4), WIDTH - width - 4)
        box = f'<rect x="{left}" y="{y - 20}" width="{width}" height="28" rx="4" fill="#fff" stroke="#777"/>'
        return box + text(left + width / 2, y - 1, label)
    end = LEFT + COLUMN * target + (4 if target < source else -4)
    center, width = (x + end) / 2, 7.2 * len(label) + 6
    left = min(max(center - width / 2, 4), WIDTH - width - 4)
    background = f'<rect x="{left}" y="{y - 23}" width="{width}" height="18" fill="#fff"/>'
    line = f'<line x1="{x}" y1="{y}" x2="{end}" y2="{y}" stroke="#1f5fa8" stroke-width="1.5" marker-end="url(#head)"/>'
    return background + line + text(left + width / 2, y - 9, label)


def main() -> None:
    """Write the picture."""
    shapes = []
    for index, name in enumerate(PARTICIPANTS):
        x = LEFT + COLUMN * index
        shapes += [
            f'<line x1="{x}" y1="{TOP - 20}" x2="{x}" y2="{HEIGHT - 10}" stroke="#999" stroke-dasharray="4 4"/>',
            f'<rect x="{x - 65}" y="16" width="130" height="34" rx="6" fill="#e8f0fa" stroke="#1f5fa8"/>',
            text(x, 38, name, weight="bold"),
        ]
    shapes += [arrow(number, *step) for number, step in enumerate(STEPS)]
    head = '<marker id="head" markerWidth="10" markerHeight="8" refX="8" refY="4" orient="auto">'
    OUT.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
        ' font-family="DejaVu Sans, Helvetica, Arial, sans-serif" font-size="14">\n'
        f'<defs>{head}<path d="M0,0 L10,4 L0,8 z" fill="#1f5fa8"/></marker></defs>\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>\n' + "\n".join(shapes) + "\n</svg>\n"
    )


main()
