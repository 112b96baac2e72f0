"""A coarse mesh of a body: some of its vertices, faces between them, and the map back.

A network that predicts the vertices of a mesh works on a few hundred of them, and the full mesh
follows by a fixed linear map. As in CoMA (Ranjan et al., "Generating 3D Faces using Convolutional
Mesh Autoencoders", ECCV 2018) and MeshGraphormer (Lin et al., ICCV 2021), quadric decimation of the
template chooses the vertices, and barycentric coordinates on the coarse surface are the map.
"""

import contextlib
import hashlib
import importlib.resources
import io
from collections.abc import Iterable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from smpl_jax import SmplModel

from genhmr_jax.geometry.decimation import decimate, edges_of
from genhmr_jax.io import program_store
from genhmr_jax.io.compilation_cache import cache_directory

_FORM = 1  # a part of the names of stored meshes: increase it when other meshes come out
_STORED = importlib.resources.files("genhmr_jax").joinpath("assets", "coarse")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CoarseMesh:
    """C of the V vertices of a mesh, with faces between them; a pytree of arrays.

    Attributes:
      vertices: (C,) int32 ids in the full mesh, ascending.
      faces: (F, 3) int32 coarse ids, counter-clockwise from outside.
      corners: (V, 3) int32 coarse ids: the triangle on which the map puts each full vertex. For a
        vertex that is itself coarse, its own coarse id three times.
      weights: (V, 3) float32 barycentric coordinates there; not negative, and their sum is 1.
    """

    vertices: Int[Array, "C"]
    faces: Int[Array, "F 3"]
    corners: Int[Array, "V 3"]
    weights: Float[Array, "V 3"]

    def down(self, fine: Float[Array, "*batch V K"]) -> Float[Array, "*batch C K"]:
        """The values of a full mesh, such as positions, at the coarse vertices."""
        return jnp.asarray(fine)[..., self.vertices, :]

    def up(self, coarse: Float[Array, "*batch C K"]) -> Float[Array, "*batch V K"]:
        """The values on the full mesh, linearly interpolated in the coarse triangles."""
        coarse = jnp.asarray(coarse)
        return sum(coarse[..., self.corners[:, k], :] * self.weights[:, k, None] for k in range(3))

    @property
    def adjacency(self) -> Float[np.ndarray, "C C"]:
        """`normalised_adjacency` of the coarse edges. A new table; not inside `jit`."""
        return normalised_adjacency(edges_of(np.asarray(self.faces)), len(self.vertices))


def normalised_adjacency(edges: Int[np.ndarray, "E 2"], count: int) -> Float[np.ndarray, "C C"]:
    """D^-1/2 (A + I) D^-1/2 of a graph with edges A, float32; D has the row sums of A + I.

    Of Kipf & Welling, "Semi-Supervised Classification with Graph Convolutional Networks", ICLR
    2017.

    Args:
      edges: pairs of nodes.
      count: number of nodes.
    """
    links = np.eye(count)
    first, second = edges.T
    links[first, second] = links[second, first] = 1.0
    scale = links.sum(-1) ** -0.5
    return (scale[:, None] * links * scale).astype(np.float32)


def coarse_mesh(body: SmplModel, count: int = 431) -> CoarseMesh:
    """The coarse mesh of a body.

    For the shipped bodies it is stored in the package. For another body it is computed, which takes
    seconds, and stored in the user's cache directory if that is possible. Where the file in the
    cache is missing or damaged, the mesh is computed again.
    """
    name = file_name(body, count)
    # 1. Shipped with the package.
    shipped = _STORED.joinpath(name)
    if shipped.is_file():
        return _from_bytes(shipped.read_bytes(), body)
    # 2. In the user's cache.
    cache = cache_directory()
    entry = None if cache is None else cache / "coarse" / name
    if entry is not None and (content := program_store.read(entry)) is not None:
        with contextlib.suppress(Exception):  # an intact entry of a foreign format
            return _from_bytes(content, body)
    # 3. A new one.
    mesh = simplify_body(body, count)
    if entry is not None:
        program_store.write(entry, to_bytes(mesh))
    return mesh


def simplify_body(body: SmplModel, count: int = 431) -> CoarseMesh:
    """`simplify` for a body: several vertices remain of those that each joint moves most."""
    return simplify(np.asarray(body.template).T, np.asarray(body.faces), count, _groups(body))


def file_name(body: SmplModel, count: int = 431) -> str:
    """The name of the file of a coarse mesh: a hash of all that the mesh depends on."""
    digest = hashlib.sha256(f"{_FORM} {count} {body.num_vertices}\n".encode())
    for table, kind in ((body.template, "<f4"), (body.faces, "<i4"), (_groups(body), "<i4")):
        digest.update(np.ascontiguousarray(table, kind).tobytes())
    return f"{digest.hexdigest()[:40]}.npz"


def _groups(body: SmplModel) -> Int[np.ndarray, "V"]:
    """The joint that moves each vertex most."""
    return np.asarray(body.weights).argmax(0)


def to_bytes(mesh: CoarseMesh) -> bytes:
    """The content of the file of a mesh: its vertices and faces. The map up follows from them."""
    file = io.BytesIO()
    np.savez_compressed(file, vertices=mesh.vertices, faces=mesh.faces)
    return file.getvalue()


def _from_bytes(content: bytes, body: SmplModel) -> CoarseMesh:
    """The mesh of a file."""
    with np.load(io.BytesIO(content)) as arrays:
        return _with_map(np.asarray(body.template).T, arrays["vertices"], arrays["faces"])


def simplify(
    template: Float[np.ndarray, "V 3"],
    faces: Int[np.ndarray, "F 3"],
    count: int = 431,
    groups: Int[np.ndarray, "V"] | None = None,
) -> CoarseMesh:
    """Choose `count` vertices of a mesh, connect them by faces, and find the map back.

    The arguments, the properties of the faces, and a ValueError are those of
    decimation.`decimate`. The map puts each vertex at the closest point of the coarse surface, in
    the positions of `template` (metres).
    """
    kept = decimate(template, faces, count, groups)
    vertices = np.unique(kept)
    return _with_map(template, vertices, np.searchsorted(vertices, kept))


def farthest_points(
    points: Float[np.ndarray, "V 3"], start: Iterable[int], count: int
) -> list[int]:
    """The ids of `start`, then those of `count` points spread evenly: farthest point sampling.

    Each is the point farthest from all before it. If there are fewer than `count` points, all are
    chosen; then some ids, and those of `start`, come twice.
    """
    distance = np.full(len(points), np.inf)
    chosen = list(start)
    for index in chosen:
        distance = np.minimum(distance, np.sum((points - points[index]) ** 2, -1))
    for _ in range(min(count, len(points))):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.sum((points - points[chosen[-1]]) ** 2, -1))
    return chosen


def _with_map(
    template: Float[np.ndarray, "V 3"],
    vertices: Int[np.ndarray, "C"],
    faces: Int[np.ndarray, "F 3"],
) -> CoarseMesh:
    """A coarse mesh with its map up: to the closest point of the coarse surface."""
    corners, weights = _closest_points(template, template[vertices], faces)
    corners[vertices] = np.arange(len(vertices))[:, None]
    weights[vertices] = 1.0, 0.0, 0.0
    tables = (vertices, faces, corners)
    return CoarseMesh(*(t.astype(np.int32) for t in tables), weights.astype(np.float32))


def _closest_points(
    points: Float[np.ndarray, "V 3"],
    vertices: Float[np.ndarray, "C 3"],
    faces: Int[np.ndarray, "F 3"],
) -> tuple[Int[np.ndarray, "V 3"], Float[np.ndarray, "V 3"]]:
    """The closest points of a surface: the corners of their triangles, and their coordinates."""
    points, vertices = points.astype(np.float64), vertices.astype(np.float64)
    triangles = vertices[faces]
    # 1. The triangles in question: their bounding spheres are not farther than the next vertex is.
    centres = triangles.mean(1)
    radii = np.linalg.norm(triangles - centres[:, None], axis=-1).max(1)
    limit = _distances(points, vertices).min(1, keepdims=True)
    rows, columns = np.nonzero(_distances(points, centres) <= limit + radii + 1e-6)
    # 2. The closest point of each: on its plane, if that lies inside, or on one of its edges.
    p, (a, b, c) = points[rows], np.moveaxis(triangles[columns], 1, 0)
    normal = np.cross(b - a, c - a)
    area = np.maximum(np.sum(normal**2, -1), 1e-30)
    inner = [
        np.sum(np.cross(y - x, p - x) * normal, -1) / area for x, y in ((b, c), (c, a), (a, b))
    ]
    inner = np.stack(inner, -1)
    outside = (inner.min(-1) < 0) | (np.abs(inner.sum(-1) - 1) > 1e-6)
    choices = [np.where(outside[:, None], np.eye(3)[0], inner)]
    for i, (x, y) in enumerate(((a, b), (b, c), (c, a))):
        length = np.maximum(np.sum((y - x) ** 2, -1), 1e-30)
        share = np.clip(np.sum((p - x) * (y - x), -1) / length, 0, 1)[:, None]
        choices.append((1 - share) * np.eye(3)[i] + share * np.eye(3)[(i + 1) % 3])
    choices = np.stack(choices, 1)
    found = np.einsum("nok,nkc->noc", choices, triangles[columns])
    distance = np.sum((found - p[:, None]) ** 2, -1)
    best = distance.argmin(1)
    # 3. The closest of the triangles of each point.
    order = np.lexsort((distance.min(1), rows))
    first = order[np.unique(rows[order], return_index=True)[1]]
    return faces[columns[first]], choices[first, best[first]]


def _distances(
    points: Float[np.ndarray, "N 3"], others: Float[np.ndarray, "M 3"]
) -> Float[np.ndarray, "N M"]:
    """Distances of all pairs; errors up to 1e-7 m, but quick."""
    square = np.sum(points**2, -1)[:, None] + np.sum(others**2, -1) - 2 * points @ others.T
    return np.sqrt(np.maximum(square, 0))
