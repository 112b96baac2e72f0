"""The mesh: cavities closed, decimated, exactly symmetric. Each step is a sparse matrix from old to
new vertices."""

from dataclasses import dataclass

import numpy as np
import pyfqmr
import scipy.sparse as sparse
from scipy.spatial import cKDTree

from free_body.geometry import MIRROR


@dataclass(frozen=True)
class HalfMesh:
    """A symmetric mesh: left vertices, then the midline, then the right ones in the order of the
    left.

    Attributes:
      operator: (left + middle, source vertices) barycentric weights.
      faces: (F, 3) of the whole mesh.
      mirror: (V,) partner of each vertex.
      left, middle: how many vertices.
      gap: distance of the new vertices from the old surface.
    """

    operator: sparse.csr_matrix
    faces: np.ndarray
    mirror: np.ndarray
    left: int
    middle: int
    gap: np.ndarray

    def whole(self, vertices: np.ndarray, source_mirror: np.ndarray) -> np.ndarray:
        """Source vertices (V, 3), made symmetric, on this mesh."""
        even = 0.5 * (vertices + vertices[source_mirror] * MIRROR.astype(vertices.dtype))
        half = self.operator.astype(vertices.dtype) @ even
        half[self.left :, 0] = 0
        return np.concatenate([half, half[: self.left] * MIRROR.astype(vertices.dtype)])


def boundary_loops(faces: np.ndarray) -> list[list[int]]:
    """The holes of a mesh, as loops of vertices."""
    edges = set(map(tuple, np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])))
    following: dict[int, list[int]] = {}
    for a, b in edges:
        if (b, a) not in edges:
            following.setdefault(a, []).append(b)

    def step(vertex: int) -> int:
        nearest = following[vertex].pop()
        if not following[vertex]:
            del following[vertex]
        return nearest

    loops = []
    while following:
        start = next(iter(following))
        loop, vertex = [start], step(start)
        while vertex != start:
            loop.append(vertex)
            vertex = step(vertex)
        loops.append(loop)
    return loops


def close_cavities(
    count: int, faces: np.ndarray, inside: np.ndarray
) -> tuple[sparse.csr_matrix, np.ndarray, int]:
    """Drops the inside of mouth and eye sockets, and closes each hole by a fan around a new vertex,
    the centre of its rim.

    Returns:
      Operator (new, old vertices), faces, how many centres were added; they are the last vertices.
    """
    faces = faces[~inside[faces].any(1)]
    loops = boundary_loops(faces)
    rows, fans = [sparse.identity(count, format="csr")], []
    for centre, loop in enumerate(loops, start=count):
        mean = np.full(len(loop), 1 / len(loop))
        rows.append(sparse.csr_matrix((mean, (np.zeros(len(loop), int), loop)), shape=(1, count)))
        fans += [(b, a, centre) for a, b in zip(loop, loop[1:] + loop[:1], strict=True)]
    faces = np.concatenate([faces, np.array(fans, int).reshape(-1, 3)])
    used = np.unique(faces)
    return sparse.vstack(rows).tocsr()[used], _renumber(faces, used, count + len(loops)), len(loops)


def decimate(vertices: np.ndarray, faces: np.ndarray, target: int) -> HalfMesh:
    """Quadric decimation of the left half with its midline border kept, then mirrored."""
    on_middle = np.abs(vertices[:, 0]) < 1e-4
    left = (vertices[:, 0] > 0) | on_middle
    half_faces = faces[left[faces].all(1)]
    used = np.unique(half_faces)
    half = vertices[used].copy()
    half[on_middle[used], 0] = 0
    fewer, fewer_faces = half, _renumber(half_faces, used, len(vertices))
    if target < len(vertices):
        simplifier = pyfqmr.Simplify()
        simplifier.setMesh(fewer, fewer_faces)
        # A closed mesh of V vertices has 2 V - 4 faces, each half V - 2.
        simplifier.simplify_mesh(
            target_count=target - 2,
            aggressiveness=5,
            preserve_border=True,
            verbose=False,
            max_iterations=400,
        )
        fewer, fewer_faces, _ = simplifier.getMesh()
    operator, gap = nearest_on_surface(fewer, vertices, half_faces)
    middle = np.abs(fewer[:, 0]) < 1e-6
    order = np.concatenate([np.flatnonzero(~middle), np.flatnonzero(middle)])
    n, m = int((~middle).sum()), int(middle.sum())
    fewer_faces = np.argsort(order)[fewer_faces]
    mirror = np.concatenate([np.arange(n) + n + m, np.arange(m) + n, np.arange(n)])
    return HalfMesh(
        operator[order],
        np.concatenate([fewer_faces, mirror[fewer_faces][:, ::-1]]),
        mirror,
        n,
        m,
        gap,
    )


def nearest_on_surface(
    points: np.ndarray, vertices: np.ndarray, faces: np.ndarray
) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Barycentric weights (points, vertices) of the nearest surface points, and their distances."""
    corners = vertices[faces]
    _, candidates = cKDTree(corners.mean(1)).query(points, k=min(40, len(faces)))
    best = np.full(len(points), np.inf)
    face, weights = np.zeros(len(points), int), np.zeros((len(points), 3))
    for candidate in candidates.T:
        found = _barycentric(points, *np.swapaxes(corners[candidate], 0, 1))
        squared = np.sum((np.einsum("pc,pcx->px", found, corners[candidate]) - points) ** 2, 1)
        better = squared < best
        best[better], face[better], weights[better] = (
            squared[better],
            candidate[better],
            found[better],
        )
    rows = np.repeat(np.arange(len(points)), 3)
    return sparse.csr_matrix(
        (weights.ravel(), (rows, faces[face].ravel())), shape=(len(points), len(vertices))
    ), np.sqrt(best)


def _barycentric(p: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Barycentric weights of the point of each triangle that is nearest to p."""
    dot = lambda u, v: np.sum(u * v, 1)
    ab, ac, ap = b - a, c - a, p - a
    scale = np.maximum(dot(ab, ab) * dot(ac, ac) - dot(ab, ac) ** 2, 1e-20)
    v = (dot(ac, ac) * dot(ap, ab) - dot(ab, ac) * dot(ap, ac)) / scale
    w = (dot(ab, ab) * dot(ap, ac) - dot(ab, ac) * dot(ap, ab)) / scale
    weights = np.stack([1 - v - w, v, w], 1)
    outside = (weights < 0).any(1)
    corners = np.stack([a, b, c], 1)[outside]
    on_edges, distances = [], []
    for start, end in ((0, 1), (1, 2), (2, 0)):
        edge = corners[:, end] - corners[:, start]
        t = np.clip(
            dot(p[outside] - corners[:, start], edge) / np.maximum(dot(edge, edge), 1e-20), 0, 1
        )
        on_edge = np.zeros((len(t), 3))
        on_edge[:, start], on_edge[:, end] = 1 - t, t
        on_edges.append(on_edge)
        distances.append(np.sum((corners[:, start] + t[:, None] * edge - p[outside]) ** 2, 1))
    weights[outside] = np.stack(on_edges)[np.argmin(distances, 0), np.arange(int(outside.sum()))]
    return weights


def _renumber(faces: np.ndarray, used: np.ndarray, count: int) -> np.ndarray:
    new = np.full(count, -1)
    new[used] = np.arange(len(used))
    return new[faces]
