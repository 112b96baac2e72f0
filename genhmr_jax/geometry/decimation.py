"""Quadric decimation of a triangle mesh that keeps symmetry, topology and small parts.

Garland & Heckbert, "Surface Simplification Using Quadric Error Metrics", SIGGRAPH 1997, with
half-edge collapses: a vertex moves onto a neighbour, so that vertices that remain do not move.
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

SPREAD = 0.02
"""Weight of squared distances between points, relative to squared distances from planes.

The larger, the more even the density. Between 0.01 and 0.04 the errors of the free bodies in random
poses, down and up, differ by less than a tenth.
"""
LEAST = 4
"""Vertices that stay of each group, such as the vertices that one joint moves most."""
_LEAST_COSINE = 0.2  # of the angle by which one collapse may turn a face


def decimate(
    points: Float[np.ndarray, "V 3"],
    faces: Int[np.ndarray, "F 3"],
    count: int,
    groups: Int[np.ndarray, "V"] | None = None,
) -> Int[np.ndarray, "G 3"]:
    """Remove all but `count` vertices of a mesh; returns the faces between the others.

    The surface remains a manifold with the same components, holes and handles. A closed component
    keeps four vertices at least; vertices without faces are dropped. A border remains a border, but
    may move inwards: bodies have none.

    Where the mesh is nearly its own mirror image in x = 0, vertices are removed together with their
    images, and those in the middle move onto others in the middle, so that the result is symmetric
    too. If this leads no further, the rest is removed one by one.

    Args:
      points: metres.
      faces: counter-clockwise from outside.
      count: of the result. A mesh with as few vertices remains as it is. If the last step would
        break the symmetry, the result has one more.
      groups: a number from 0 for each vertex. LEAST vertices of each group remain, or fewer if
        `count` is small.

    Raises:
      ValueError: so few vertices are impossible without a hole or a lost component.
    """
    surface = _Surface(np.asarray(points, np.float64), np.asarray(faces))
    return np.array(surface.reduce(count, groups))


def edges_of(faces: Int[np.ndarray, "F 3"]) -> Int[np.ndarray, "E 2"]:
    """The edges of a mesh, each once, the smaller id first."""
    return np.unique(np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)), axis=0)


def _mirror_images(
    points: Float[np.ndarray, "V 3"], edges: Int[np.ndarray, "E 2"]
) -> Int[np.ndarray, "V"]:
    """For each vertex its image in x = 0: itself in the middle, -1 if there is none.

    An image is the nearest vertex of the reflected point, not farther than half of the shortest
    edge there. If most edges have no image, the mesh is not symmetric, and no vertex has one.
    """
    # Imported here, because all of `recover` would wait for it, and needs no decimation.
    from scipy.spatial import cKDTree

    lengths = np.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=-1)
    shortest = np.full(len(points), np.inf)
    np.minimum.at(shortest, edges, lengths[:, None])
    distance, image = cKDTree(points).query(points * (-1, 1, 1))
    paired = (image[image] == np.arange(len(points))) & (distance <= 0.5 * shortest)
    image = np.where(paired & paired[image], image, -1)
    known = set(map(tuple, edges.tolist()))
    kept = sum(edge in known for edge in map(tuple, np.sort(image[edges]).tolist()))
    return image if 2 * kept >= len(edges) else np.full(len(points), -1)


def _quadrics(
    points: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"]
) -> Float[np.ndarray, "V 4 4"]:
    """Q of each vertex: (x, 1) Q (x, 1) is the cost if the vertex moves to x, m^3.

    Squared distances from the planes of the faces around it, and SPREAD times the squared
    distance from the vertex. A face counts by the square root of its area: by the area, as usual,
    hands and feet would keep few vertices; counted equally, the head would keep too many.
    """
    a, b, c = np.moveaxis(points[faces], 1, 0)
    normal = np.cross(b - a, c - a)
    area = np.linalg.norm(normal, axis=-1)
    normal = normal / np.maximum(area, 1e-30)[:, None]
    weight = np.sqrt(area)
    plane = np.concatenate([normal, -np.sum(normal * a, -1, keepdims=True)], -1)
    total = np.bincount(faces.ravel(), np.repeat(weight, 3), len(points))
    quadrics = np.zeros((len(points), 4, 4))
    quadrics[:, :3, :3] = np.eye(3)
    quadrics[:, :3, 3] = quadrics[:, 3, :3] = -points
    quadrics[:, 3, 3] = np.sum(points**2, -1)
    quadrics *= SPREAD * total[:, None, None]
    by_face = weight[:, None, None] * plane[:, :, None] * plane[:, None]
    for k in range(3):
        np.add.at(quadrics, faces[:, k], by_face)
    return quadrics


class _Surface:
    """A mesh during decimation.

    Attributes:
      faces: of each face its corners, or None if it is gone.
      around: of each vertex its faces; none if it is gone.
      image: of each vertex its mirror image, of `_mirror_images`.
    """

    def __init__(self, points: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"]) -> None:
        self.points = points.tolist()
        self.faces: list[tuple[int, int, int] | None] = list(map(tuple, faces.tolist()))
        self.around: list[set[int]] = [set() for _ in self.points]
        for i, corners in enumerate(faces.tolist()):
            for vertex in corners:
                self.around[vertex].add(i)
        self.image: list[int] = _mirror_images(points, edges_of(faces)).tolist()
        self.extended = np.concatenate([points, np.ones((len(points), 1))], -1)
        self.quadrics = _quadrics(points, faces)
        self.queue: list[tuple[float, int]] = []
        self.price = [np.inf] * len(points)  # of the valid entry in the queue

    def reduce(self, count: int, groups: Int[np.ndarray, "V"] | None) -> list[tuple[int, int, int]]:
        """Remove vertices, the cheapest first, until `count` are left; returns the faces."""
        alive = [vertex for vertex, faces in enumerate(self.around) if faces]
        left = len(alive)
        groups = np.zeros(len(self.points), int) if groups is None else np.asarray(groups)
        self.group, self.size = groups.tolist(), np.bincount(groups[alive]).tolist()
        self.least = min(LEAST, count // (2 * len(self.size)))
        self._enqueue(alive)
        while left > count:
            if not self.queue and max(self.image) >= 0:
                if left == count + 1:
                    break
                self.image = [-1] * len(self.points)
                self._enqueue(vertex for vertex in alive if self.around[vertex])
            if not self.queue:
                raise ValueError(f"{left} vertices are left, and no more can go: not {count}")
            price, vertex = heapq.heappop(self.queue)
            alone = self.image[vertex] in (-1, vertex)
            if price == self.price[vertex] and self.around[vertex] and (alone or left > count + 1):
                left -= self._remove(vertex)
        return [corners for corners in self.faces if corners]

    def _enqueue(self, vertices: Iterable[int]) -> None:
        """Put vertices into the queue by their cheapest collapse; of a pair, only the first."""
        image = self.image
        for vertex in sorted({min(v, image[v]) if image[v] >= 0 else v for v in vertices}):
            self._wait((self._options(vertex) or [(np.inf, -1)])[0][0], vertex)

    def _wait(self, price: float, vertex: int) -> None:
        """Put a vertex into the queue; its older entries are void."""
        self.price[vertex] = price
        if price < np.inf:
            heapq.heappush(self.queue, (price, vertex))

    def _options(self, u: int) -> list[tuple[float, int]]:
        """(cost, v) of the neighbours v onto which u may move by the symmetry, cheapest first."""
        ring, image = sorted(self._ring(u)), self.image
        if image[u] == u:
            ring = [v for v in ring if image[v] == v]
        elif image[u] >= 0:
            opposite = self._ring(image[u])
            ring = [v for v in ring if v != image[u] and image[v] in opposite]
        targets = self.extended[ring]
        costs = np.einsum("ki,kij,kj->k", targets, self.quadrics[u] + self.quadrics[ring], targets)
        return sorted(zip(costs.tolist(), ring, strict=True))

    def _remove(self, u: int) -> int:
        """Remove a vertex, and its image, by the cheapest collapse; returns how many are gone.

        If a neighbour in the queue has become cheaper, none is, and u waits again.
        """
        for cost, v in self._options(u):
            if self.queue and cost > self.queue[0][0]:
                self._wait(cost, u)
                return 0
            pairs = [(u, v)]
            if self.image[u] not in (-1, u):
                pairs.append((self.image[u], self.image[v]))
            if self._collapse(pairs):
                near = {v for _, v in pairs}
                self._enqueue(near.union(*map(self._ring, near)))
                return len(pairs)
        return 0

    def _collapse(self, pairs: Sequence[tuple[int, int]]) -> bool:
        """Move u onto v for one or two pairs (u, v): both or none. Returns whether it was done."""
        done = []
        for u, v in pairs:
            if not self._allowed(u, v):
                for other, before in done:
                    self._replace(before)
                    self.size[self.group[other]] += 1
                return False
            before = {face: self.faces[face] for face in self.around[u]}
            self._replace({face: _moved(corners, u, v) for face, corners in before.items()})
            self.size[self.group[u]] -= 1
            done.append((u, before))
        for u, v in pairs:
            self.quadrics[v] += self.quadrics[u]
        return True

    def _replace(self, changes: Mapping[int, tuple[int, int, int] | None]) -> None:
        """Give faces other corners, or none."""
        for face, corners in changes.items():
            for vertex in self.faces[face] or ():
                self.around[vertex].discard(face)
            for vertex in corners or ():
                self.around[vertex].add(face)
            self.faces[face] = corners

    def _ring(self, vertex: int) -> set[int]:
        """The neighbours of a vertex."""
        return {w for face in self.around[vertex] for w in self.faces[face]} - {vertex}

    def _allowed(self, u: int, v: int) -> bool:
        """Whether the surface remains a manifold, and no face turns over, if u moves onto v."""
        ring, other = self._ring(u), self._ring(v)
        shared = [face for face in self.around[u] if v in self.faces[face]]
        if self.size[self.group[u]] <= self.least or not shared:
            return False
        # The link condition (Dey et al., "Topology Preserving Edge Contraction", 1999): u and v
        # have no common neighbours but those opposite to their edge. Four vertices are the least.
        if len(ring & other) != len(shared) or len(ring | other) <= 4:
            return False
        # A vertex on the border of an open surface moves along the border only.
        if len(ring) != len(self.around[u]) and len(shared) != 1:
            return False
        for face in self.around[u] - set(shared):
            corners = self.faces[face]
            old = _normal(*(self.points[w] for w in corners))
            new = _normal(*(self.points[v if w == u else w] for w in corners))
            lengths = _dot(old, old) * _dot(new, new)
            if _dot(old, new) <= _LEAST_COSINE * lengths**0.5:
                return False
        return True


def _moved(corners: tuple[int, int, int], u: int, v: int) -> tuple[int, int, int] | None:
    """The corners of a face after u moved onto v; None for a face between them."""
    return None if v in corners else tuple(v if w == u else w for w in corners)


def _normal(a: Sequence[float], b: Sequence[float], c: Sequence[float]) -> tuple[float, ...]:
    """The normal of a triangle, twice its area long. NumPy would be slower for one."""
    x, y, z = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    p, q, r = c[0] - a[0], c[1] - a[1], c[2] - a[2]
    return y * r - z * q, z * p - x * r, x * q - y * p


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    """The scalar product of two vectors."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
