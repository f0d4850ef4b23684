"""Evaluation of reconstructions on a recording whose objects have reference surfaces.

A recording is an RGB-D folder with `annotations.json` (`sparse_views`: sets of frames for an object) and
`objects_ref/<object>.ply` (world metres). For each set the reconstruction is matched to all references: is the
set's object found, how far is its observed surface from the part of the reference that the frames see, and how many
reconstructed objects are not there at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import DataFormatError, InputError
from ..geometry import camera
from ..geometry.mesh import sample_surface, select_faces, vertex_mask_faces
from ..io.rgbd_folder import RgbdFolder
from ..io.text_files import read_json_object
from ..types import BoolArray, Float32Array, Mesh, View
from .geometry import f_score, nearest_distances, surface_scores

Reconstruct = Callable[[Sequence[View]], Sequence[Mesh]]
"""Views in, one mesh in world metres for each object out."""


@dataclass(frozen=True)
class RecordingConfig:
    """Thresholds in metres."""

    f_threshold_m: float = 0.01
    visible_tolerance_m: float = 0.03
    """A reference point is seen by a frame when the frame's depth there is within this of it: drift of the poses."""
    unseen_tolerance_m: float = 0.015
    """It counts as unseen where no frame's depth is this near to it: less, since walls and far sides of small objects
    lie within the worst drift of what is seen."""
    match_threshold_m: float = 0.03
    """Distance at which points count when reconstructed objects are matched to references."""
    min_match: float = 0.5
    """Least F-score, at that distance, of an object with the reference that it is matched to."""
    max_centroid_m: float = 0.05
    """An object whose centroid is farther off is not the reference's."""
    samples: int = 10_000
    """Points drawn from each mesh."""


@dataclass(frozen=True)
class SparseSet:
    """Frames from which an object is to be reconstructed."""

    object: str
    frames: tuple[int, ...]
    set: int = 0


@dataclass(frozen=True)
class RecordingRow:
    """Result of one set; NaN where the object was not found.

    centroid_m     between the observed surface and the reference's visible part
    f_score, precision, recall  at `f_threshold_m`, observed surface against the reference's visible part
    f_score_shifted  the same after the best translation of the surface within the recording's drift: what of the
                   error is the object's place, and what is its shape
    unseen_completeness  share of the reference's points that the frames do not see, but others of the recording do,
                   closer than `f_threshold_m` to the whole mesh: what a generator added that is there
    mesh_precision share of the whole mesh, imagined parts included, that close to the whole reference. Undersides and
                   insides are missing there, so this is not 1 even for a perfect mesh
    unseen_share   share of the reference's points that the frames do not see
    false_objects  reconstructed objects that are none of the references': papers, furniture, and second parts of an
                   object that is matched already. An unmatched object whose points lie on a reference, within the
                   drift, is that object cut off by the picture's border and no false one.
    """

    object: str
    views: int
    set: int
    frames: tuple[int, ...]
    found: bool
    centroid_m: float
    f_score: float
    precision: float
    recall: float
    f_score_shifted: float
    unseen_completeness: float
    mesh_precision: float
    unseen_share: float
    objects: int
    false_objects: int


def read_sparse_sets(directory: str | Path) -> list[SparseSet]:
    """The `sparse_views` of a recording. Raises `DataFormatError`."""
    path = Path(directory) / "annotations.json"
    annotations = read_json_object(path, "it should hold the list `sparse_views`")
    try:
        return [
            SparseSet(str(s["object"]), tuple(int(f) for f in s["frames"]), int(s.get("set", 0)))
            for s in annotations["sparse_views"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise DataFormatError(
            f"{path}: `sparse_views` must be a list of {{object, frames, set}} ({error!r})"
        ) from error


def read_references(directory: str | Path) -> dict[str, Float32Array]:
    """Points (N, 3) of each reference surface of a recording. Raises `DataFormatError`."""
    import trimesh

    folder = Path(directory) / "objects_ref"
    references = {}
    for path in sorted(folder.glob("*.ply")):
        try:
            surface = trimesh.load(path, process=False)
            references[path.stem] = np.asarray(getattr(surface, "vertices", ()), dtype=np.float32)
        except Exception as error:  # trimesh raises whatever its parsers do
            raise DataFormatError(f"{path}: not a readable PLY file ({error})") from error
        if not len(references[path.stem]):
            raise DataFormatError(f"{path}: holds no points")
    if not references:
        raise DataFormatError(f"{folder}: holds no reference surfaces (<object>.ply)")
    return references


def visible_points(points_m: np.ndarray, views: Sequence[View], tolerance_m: float) -> BoolArray:
    """(N,) bool: points that at least one view's depth shows, within `tolerance_m` along the optical axis."""
    seen = np.zeros(len(points_m), dtype=bool)
    for view in views:
        if view.depth_m is None:
            raise InputError(f"view '{view.name}' has no depth, so what it sees of the reference is unknown")
        rows, cols, depth, inside = camera.pixel_index(points_m, view)
        with np.errstate(invalid="ignore"):
            seen |= inside & (np.abs(view.depth_m[rows, cols] - depth) < tolerance_m)
    return seen


def observed_points(mesh: Mesh, count: int, seed: int = 0) -> Float32Array:
    """`count` points spread over the part of a mesh that cameras saw; none for a mesh without such a part."""
    if mesh.vertex_observed is not None:
        mesh = select_faces(mesh, vertex_mask_faces(mesh, mesh.vertex_observed))
    if not len(mesh.faces):
        return np.zeros((0, 3), dtype=np.float32)
    return sample_surface(mesh, count, np.random.default_rng(seed))[0]


def evaluate_recording(
    directory: str | Path,
    reconstruct: Reconstruct,
    *,
    sets: Sequence[SparseSet] | None = None,
    prepare: Callable[[View], View] = lambda view: view,
    config: RecordingConfig | None = None,
    progress: Callable[[RecordingRow], None] | None = None,
) -> list[RecordingRow]:
    """One row for each set (default: the recording's own sparse sets).

    reconstruct gets the views of a set after `prepare` (which may withhold the depth, say); what the frames see of
    the references is always judged by the recorded depth and poses. Raises `DataFormatError` for a folder that is
    no such recording.
    """
    config = config or RecordingConfig()
    folder = RgbdFolder.open(directory)
    references = read_references(directory)
    rows = []
    for wanted in read_sparse_sets(directory) if sets is None else sets:
        if wanted.object not in references:
            raise DataFormatError(f"{directory}: no reference surface for '{wanted.object}'")
        folder.check_frames(wanted.frames)
        views = [folder.read(frame) for frame in wanted.frames]
        meshes = reconstruct([prepare(view) for view in views])
        clouds = [observed_points(mesh, config.samples) for mesh in meshes]
        whole = [observed_points(replace(mesh, vertex_observed=None), config.samples) for mesh in meshes]
        rows.append(score_set(wanted, clouds, references, views, config, whole=whole))
        if progress is not None:
            progress(rows[-1])
    return rows


def score_set(
    wanted: SparseSet,
    clouds: Sequence[np.ndarray],
    references: dict[str, Float32Array],
    views: Sequence[View],
    config: RecordingConfig,
    *,
    whole: Sequence[np.ndarray] | None = None,
) -> RecordingRow:
    """Row of one set; `clouds` are the observed surfaces (N, 3) of the reconstructed objects, `views` have depth.

    whole: points spread over all of their surfaces, in the same order; None: they are no larger than what was seen.
    """
    whole = clouds if whole is None else whole
    visible = {name: visible_points(points, views, config.visible_tolerance_m) for name, points in references.items()}
    seen = {name: points[visible[name]] for name, points in references.items()}
    seen = {name: points for name, points in seen.items() if len(points) >= 50}
    unseen = ~visible_points(references[wanted.object], views, config.unseen_tolerance_m)
    matches = _match(clouds, seen, references, config)
    found = matches.get(wanted.object)
    nan = float("nan")
    row = dict.fromkeys(("centroid_m", "f_score", "precision", "recall", "f_score_shifted"), nan)
    row |= dict.fromkeys(("unseen_completeness", "mesh_precision"), nan)
    if found is not None:
        points, truth = clouds[found].astype(np.float64), seen[wanted.object].astype(np.float64)
        scores = surface_scores(points, truth, config.f_threshold_m)
        row = {
            "centroid_m": float(np.linalg.norm(points.mean(axis=0) - truth.mean(axis=0))),
            "f_score": scores.f_score,
            "precision": scores.precision,
            "recall": scores.recall,
            "f_score_shifted": shifted_f_score(points, truth, config),
            **_whole_scores(whole[found], references[wanted.object], unseen, config),
        }
    return RecordingRow(
        object=wanted.object,
        views=len(wanted.frames),
        set=wanted.set,
        frames=wanted.frames,
        found=found is not None,
        unseen_share=float(unseen.mean()),
        objects=len(clouds),
        false_objects=_count_false(clouds, matches, references, config),
        **row,
    )


def _whole_scores(
    points: np.ndarray, reference: np.ndarray, unseen: BoolArray, config: RecordingConfig
) -> dict[str, float]:
    """Completeness of the unseen part of a reference and precision of the whole surface (N, 3); NaN where undefined."""
    if not len(points):
        return {"unseen_completeness": 0.0, "mesh_precision": float("nan")}
    hidden = reference[unseen]
    near = nearest_distances(hidden, points) < config.f_threshold_m if len(hidden) else np.array([float("nan")])
    precision = nearest_distances(points, reference) < config.f_threshold_m
    return {"unseen_completeness": float(near.mean()), "mesh_precision": float(precision.mean())}


def _match(
    clouds: Sequence[np.ndarray],
    seen: dict[str, np.ndarray],
    references: dict[str, Float32Array],
    config: RecordingConfig,
) -> dict[str, int]:
    """Reconstructed object of each reference, best pairs first, each used once."""
    pairs = []
    for name, truth in seen.items():
        for index, cloud in enumerate(clouds):
            if not len(cloud):
                continue
            if np.linalg.norm(cloud.mean(axis=0) - truth.mean(axis=0)) > config.max_centroid_m + _radius(truth) / 2:
                continue
            thinned = cloud[:: max(1, len(cloud) // 2000)]
            # Precision against the whole reference: an object is no error for being seen a little further round.
            precision = (nearest_distances(thinned, references[name]) < config.match_threshold_m).mean()
            recall = (nearest_distances(truth, thinned) < config.match_threshold_m).mean()
            pairs.append((f_score(float(precision), float(recall)), name, index))
    matches: dict[str, int] = {}
    for score, name, index in sorted(pairs, reverse=True):
        if score >= config.min_match and name not in matches and index not in matches.values():
            matches[name] = index
    return matches


def _count_false(
    clouds: Sequence[np.ndarray],
    matches: dict[str, int],
    references: dict[str, Float32Array],
    config: RecordingConfig,
) -> int:
    left = [cloud for index, cloud in enumerate(clouds) if index not in matches.values()]
    unmatched = [points for name, points in references.items() if name not in matches]
    partial = 0
    for cloud in left:
        thinned = cloud[:: max(1, len(cloud) // 2000)]
        partial += len(thinned) > 0 and any(
            (nearest_distances(thinned, points) < config.visible_tolerance_m).mean() > 0.8 for points in unmatched
        )
    return len(left) - partial


def _radius(points: np.ndarray) -> float:
    return float(np.linalg.norm(points - points.mean(axis=0), axis=1).max())


def shifted_f_score(points: np.ndarray, truth: np.ndarray, config: RecordingConfig) -> float:
    """F-score after the translation, of at most `visible_tolerance_m`, that brings the surfaces together (ICP)."""
    from scipy.spatial import cKDTree

    tree, shift = cKDTree(truth), np.zeros(3)
    thinned = points[:: max(1, len(points) // 3000)]
    for gate in np.geomspace(0.05, config.f_threshold_m, 15):
        distance, index = tree.query(thinned + shift, distance_upper_bound=gate)
        near = np.isfinite(distance)
        if near.sum() < 20:
            break
        shift = shift + (truth[index[near]] - thinned[near] - shift).mean(axis=0)
        length = float(np.linalg.norm(shift))
        shift = shift * min(1.0, config.visible_tolerance_m / max(length, 1e-9))
    return surface_scores(points + shift, truth, config.f_threshold_m).f_score


def rows_to_json(rows: Iterable[RecordingRow]) -> list[dict]:
    """Rows as JSON-ready dicts: NaN becomes None."""
    return [
        {key: None if isinstance(value, float) and np.isnan(value) else value for key, value in asdict(row).items()}
        for row in rows
    ]


def format_table(rows: Sequence[RecordingRow]) -> str:
    """Markdown table, a line for each object and number of views: one value a set, from five min / median / max."""
    lines = [
        "| object | views | sets | found | centroid mm | F@1cm | F@1cm shifted | unseen | precision | false objects |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(row.object for row in rows):
        for views in sorted({row.views for row in rows if row.object == name}):
            group = [row for row in rows if row.object == name and row.views == views]
            hits = [row for row in group if row.found]

            def spread(values: Sequence[float], scale: float = 1.0, digits: int = 2) -> str:
                if len(values) > 4:
                    values = [float(np.min(values)), float(np.median(values)), float(np.max(values))]
                    return " / ".join(f"{value * scale:.{digits}f}" for value in values)
                return ", ".join(f"{value * scale:.{digits}f}" for value in values) or "–"

            lines.append(
                f"| {name} | {views} | {len(group)} | {len(hits)} | {spread([r.centroid_m for r in hits], 1e3, 0)} | "
                f"{spread([r.f_score for r in hits])} | {spread([r.f_score_shifted for r in hits])} | "
                f"{spread([r.unseen_completeness for r in hits])} | {spread([r.mesh_precision for r in hits])} | "
                f"{sum(row.false_objects for row in group)} |"
            )
    return "\n".join(lines)
