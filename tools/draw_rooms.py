"""Draws docs/images/rooms.svg: which room of the package imports from which, from the real imports.

    python tools/draw_rooms.py

A row imports from a column. The number is that of importing modules, late imports included. Rooms
are in their order, so everything lies below the diagonal: an import upwards would lie above it.
"""

import ast
import pathlib
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "genhmr_jax"
PICTURE = ROOT / "docs" / "images" / "rooms.svg"
ROOMS = {
    "io": "files, errors, caches",
    "geometry": "cameras, bodies, metrics",
    "nets": "network layers, not specific to pose",
    "render": "meshes to pixels and files",
    "detect": "people, keypoints, masks",
    "core": "the method, one idea a file",
    "data": "datasets to training rows",
    "train": "the training loop, for any system",
    "systems": "one folder a paper",
    "recover": "photo to people",
    "evaluate": "records to tables",
    "cli": "the commands",
}
CELL, LEFT, TOP = 46, 370, 96


def modules() -> Iterator[tuple[str, ast.Module]]:
    """(dotted name below the package, syntax tree) of every module in a room."""
    for room in ROOMS:
        for file in sorted((PACKAGE / room).rglob("*.py")):
            name = ".".join(file.relative_to(PACKAGE).with_suffix("").parts)
            yield name.removesuffix(".__init__"), ast.parse(file.read_text())


def imports(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """(dotted name below the package, statement) of every import from the package."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("genhmr_jax"):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.startswith("genhmr_jax."):
                yield name.removeprefix("genhmr_jax."), node


def counts() -> dict[tuple[str, str], int]:
    """(importing room, imported room) -> number of importing modules, between different rooms."""
    found: dict[tuple[str, str], int] = {}
    for name, tree in modules():
        room = name.split(".")[0]
        for other in {target.split(".")[0] for target, _ in imports(tree)} & ROOMS.keys() - {room}:
            found[room, other] = found.get((room, other), 0) + 1
    return found


def draw() -> str:
    """The picture as SVG."""
    names, most = list(ROOMS), max(counts().values())
    width, height = LEFT + CELL * len(names) + 20, TOP + CELL * len(names) + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        '<text x="16" y="30" font-size="17">A row imports from a column</text>',
    ]
    for i, (name, about) in enumerate(ROOMS.items()):
        x, y = LEFT + CELL * i, TOP + CELL * i
        middle = y + CELL // 2 + 5
        parts += [
            f'<text x="16" y="{middle}" font-size="15" font-weight="bold">{name}</text>',
            f'<text x="108" y="{middle}" font-size="13" fill="#444">{about}</text>',
            f'<text x="{x + CELL // 2 + 5}" y="{TOP - 8}" font-size="14" font-weight="bold" '
            f'transform="rotate(-45 {x + CELL // 2 + 5} {TOP - 8})">{name}</text>',
            f'<rect x="{x}" y="{y}" width="{CELL}" height="{CELL}" fill="#ddd"/>',
        ]
    for (room, other), count in sorted(counts().items()):
        x, y = LEFT + CELL * names.index(other), TOP + CELL * names.index(room)
        upward = names.index(other) > names.index(room)
        color = "#d62728" if upward else "#1f77b4"
        opacity = 0.2 + 0.8 * (count / most) ** 0.5
        parts += [
            f'<rect x="{x + 2}" y="{y + 2}" width="{CELL - 4}" height="{CELL - 4}" rx="5" '
            f'fill="{color}" fill-opacity="{opacity:.2f}"/>',
            f'<text x="{x + CELL // 2}" y="{y + CELL // 2 + 5}" font-size="14" '
            f'text-anchor="middle" fill="{"white" if opacity > 0.6 else "black"}">{count}</text>',
        ]
    for i in range(len(names) + 1):
        x, y, end = LEFT + CELL * i, TOP + CELL * i, CELL * len(names)
        parts += [f'<path d="M{x} {TOP}v{end}M{LEFT} {y}h{end}" stroke="#bbb" stroke-width="0.5"/>']
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(draw())
    print(f"wrote {PICTURE.relative_to(ROOT)}")
