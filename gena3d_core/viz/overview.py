"""One picture that tells what went in and what came out: views with masks, the result from several sides, objects."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..geometry.mesh import transformed
from ..types import BoolArray, Mesh, ReconstructedObject, Reconstruction, UInt8Array
from .cameras import azimuth_of, orbit_camera
from .canvas import CARD, FAINT, INK, MUTED, Canvas, Color, fitted, object_color, text_width, wrapped
from .masks import annotated_view
from .render import instance_map, render_meshes

WIDTH, MARGIN, GAP = 1600, 32, 14
HEADER, CAPTION, FOOTER = 96, 24, 84
MAX_VIEWS, MAX_CARDS = 8, 12
CARD_HEIGHT = 282
MIN_BODY = 650
VIEW_GRIDS = {1: (1, 560), 2: (1, 400), 3: (1, 300), 4: (2, 330), 5: (2, 290), 6: (2, 290), 7: (2, 240), 8: (2, 240)}
"""Columns and width of a thumbnail for so many views."""
HEADLINES = {"registration_rmse_m": "views agree to", "pose_correction_max_m": "poses corrected by up to"}
"""Residuals (metres) that the headline tells, and in which words."""
SEPARATOR = "   ·   "
UNSEEN: Color = (214, 208, 200)
"""Colour of surface that no camera saw."""
STAGE_COLORS: tuple[Color, ...] = (
    (66, 103, 172), (94, 151, 201), (122, 190, 186), (170, 207, 132), (240, 196, 94), (236, 145, 82), (204, 92, 92),
)  # fmt: skip


def overview(result: Reconstruction) -> UInt8Array:
    """(H, 1600, 3) uint8 RGB picture of a reconstruction; needs no GPU and no window.

    Views are shown (the first eight) with the masks of `result.observations`; without observations the masks are
    where the result's meshes project to. A result without views or objects gives a picture that says so.
    """
    page = _Page(result)
    views_height = page.views_panel.height
    body_height = max(MIN_BODY, views_height + FOOTER + GAP)
    card_rows = math.ceil(min(len(page.objects), MAX_CARDS) / page.card_columns)
    height = HEADER + body_height + card_rows * (CARD_HEIGHT + GAP) + MARGIN
    canvas = Canvas(WIDTH, height + page.notes_height)
    page.draw_header(canvas)
    page.draw_views(canvas, HEADER)
    page.draw_timings(canvas, HEADER + body_height - FOOTER)
    page.draw_renders(canvas, HEADER, body_height - GAP)
    page.draw_cards(canvas, HEADER + body_height)
    page.draw_notes(canvas, height - MARGIN + 6)
    return canvas.pixels


@dataclass(frozen=True)
class _Panel:
    """Grid of the input views."""

    columns: int
    cell_width: int
    cell_height: int
    rows: int

    @property
    def width(self) -> int:
        return self.columns * (self.cell_width + GAP) - GAP

    @property
    def height(self) -> int:
        return self.rows * (self.cell_height + CAPTION)


class _Page:
    """The parts of the picture; each `draw_...` fills its own region."""

    def __init__(self, result: Reconstruction) -> None:
        self.scene, self.views = result.scene, result.views[:MAX_VIEWS]
        self.hidden_views = len(result.views) - len(self.views)
        self.objects = self.scene.objects
        self.colors = [object_color(i) for i in range(len(self.objects))]
        self.names = _names(self.objects)
        # Three columns where they leave fewer gaps.
        self.card_columns = 3 if len(self.objects) in (1, 2, 3, 5, 6, 9) else 4
        self.meshes = [transformed(entry.mesh, entry.T_world_object) for entry in self.objects]
        self.observations = {observation.id: observation for observation in result.observations}
        self.views_panel = self._layout_views()
        legend = (
            "Right picture of each object: in its colour where a camera saw the surface, grey where it was inferred."
        )
        notes = [*([legend] if self.objects else []), *self.scene.warnings[:4]]
        self.notes = [line for text in notes for line in wrapped(text, 15, WIDTH - 2 * MARGIN - 80)]
        self.notes_height = 22 * len(self.notes) + (10 if self.notes else 0)

    def draw_header(self, canvas: Canvas) -> None:
        count, views = len(self.objects), len(self.scene.view_names) or len(self.views)
        title = f"{count} object{'s' * (count != 1)} from {views} view{'s' * (views != 1)}"
        canvas.text((MARGIN, 26), title, 34)
        facts = [f"frame '{self.scene.frame_id}'"]
        if "total" in self.scene.timings_s:
            facts.append(f"{self.scene.timings_s['total']:.2f} s")
        facts.extend(
            f"{words} {1000 * self.scene.residuals[key]:.1f} mm"
            for key, words in HEADLINES.items()
            if key in self.scene.residuals
        )
        room = WIDTH - 3 * MARGIN - text_width(title, 34)
        while len(facts) > 1 and text_width(SEPARATOR.join(facts), 17) > room:
            facts.pop()
        canvas.text((WIDTH - MARGIN, 42), fitted(SEPARATOR.join(facts), 17, room), 17, MUTED, anchor="ra")
        canvas.line((MARGIN, HEADER - 18), (WIDTH - MARGIN, HEADER - 18), FAINT)

    def draw_views(self, canvas: Canvas, top: int) -> None:
        panel = self.views_panel
        for index, view in enumerate(self.views):
            left = MARGIN + (index % panel.columns) * (panel.cell_width + GAP)
            upper = top + (index // panel.columns) * (panel.cell_height + CAPTION)
            visible, occluded = self._masks(index)
            thumbnail = annotated_view(
                view, visible, occluded, self.colors, self.names, panel.cell_width, panel.cell_height
            )
            canvas.paste(thumbnail, (left, upper), radius=8)
            caption = f"view {view.name}" if view.camera == "camera" else f"view {view.name} · {view.camera}"
            if index == len(self.views) - 1 and self.hidden_views:
                caption += f"   (+ {self.hidden_views} more)"
            canvas.text((left + 2, upper + panel.cell_height + 3), fitted(caption, 14, panel.cell_width), 14, MUTED)

    def draw_timings(self, canvas: Canvas, top: int) -> None:
        """A bar whose parts are the stages, the largest named beneath."""
        stages = {name: seconds for name, seconds in self.scene.timings_s.items() if name != "total"}
        total = sum(stages.values())
        if total <= 0:
            return
        left, width = MARGIN, self.views_panel.width
        canvas.text((left, top), f"Where the {total:.2f} s went", 16)
        x = float(left)
        for index, (_, seconds) in enumerate(stages.items()):
            end = x + width * seconds / total
            canvas.box((round(x), top + 26, max(round(x), round(end) - 2), top + 38), STAGE_COLORS[index % 7])
            x = end
        x_text = left
        for index, name in sorted(enumerate(stages), key=lambda item: -stages[item[1]]):
            text = f"{name} {stages[name]:.2f}"
            if x_text + text_width(text, 14) + 16 > left + width:
                break
            canvas.box((x_text, top + 50, x_text + 9, top + 59), STAGE_COLORS[index % 7], radius=2)
            canvas.text((x_text + 14, top + 54), text, 14, MUTED, anchor="lm")
            x_text += text_width(text, 14) + 30

    def draw_renders(self, canvas: Canvas, top: int, height: int) -> None:
        left = MARGIN + (self.views_panel.width + 2 * GAP if self.views else 0)
        width = WIDTH - MARGIN - left
        if not self.meshes:
            canvas.box((left, top, left + width, top + height), CARD, FAINT, radius=10)
            canvas.text((left + width // 2, top + height // 2), "no objects found", 24, MUTED, anchor="mm")
            return
        small_width = (width - 2 * GAP) // 3
        small_height = round(small_width * 0.72)
        hero_height = height - small_height - GAP - CAPTION
        points = np.concatenate([mesh.vertices for mesh in self.meshes])
        center = (points.min(axis=0) + points.max(axis=0)) / 2
        start = azimuth_of(self.views[0].T_world_camera, center) if self.views else -math.pi / 2
        self._paste_render(canvas, (left, top), width, hero_height, start + 0.45, 0.45, points)
        sides = ((start + math.radians(145), 0.45, "the other side"), (start + math.radians(265), 0.3, "from the left"))
        for index, (azimuth, elevation, text) in enumerate((*sides, (start, 1.5, "from above"))):
            at = (left + index * (small_width + GAP), top + hero_height + GAP)
            self._paste_render(canvas, at, small_width, small_height, azimuth, elevation, points)
            canvas.text((at[0] + 2, at[1] + small_height + 3), text, 14, MUTED)

    def draw_cards(self, canvas: Canvas, top: int) -> None:
        width = (WIDTH - 2 * MARGIN - (self.card_columns - 1) * GAP) // self.card_columns
        for index, entry in enumerate(self.objects[:MAX_CARDS]):
            left = MARGIN + (index % self.card_columns) * (width + GAP)
            upper = top + (index // self.card_columns) * (CARD_HEIGHT + GAP)
            self._draw_card(canvas, index, entry, (left, upper), width)
        if len(self.objects) > MAX_CARDS:
            text = f"+ {len(self.objects) - MAX_CARDS} more in scene.json"
            canvas.text((WIDTH - MARGIN, top - 22), text, 15, MUTED, anchor="ra")

    def draw_notes(self, canvas: Canvas, top: int) -> None:
        for row, line in enumerate(self.notes):
            if row == 0:
                canvas.text((MARGIN, top), "Notes", 15, INK)
            canvas.text((MARGIN + 70, top + 22 * row), line, 15, MUTED)

    def _draw_card(
        self, canvas: Canvas, index: int, entry: ReconstructedObject, at: tuple[int, int], width: int
    ) -> None:
        left, top = at
        canvas.box((left, top, left + width, top + CARD_HEIGHT), CARD, FAINT, radius=10)
        side = (width - 3 * GAP) // 2
        picture_height = CARD_HEIGHT - 104
        mesh = self.meshes[index]
        start = azimuth_of(self._best_view_pose(entry.id), entry.T_world_object[:3, 3])
        coverage = _coverage_colors(mesh, self.colors[index])
        for column, (shown, azimuth) in enumerate(((mesh, start + 0.5), (coverage, start + 2.4))):
            T, intrinsics = orbit_camera(mesh.vertices, azimuth, 0.5, side, picture_height, margin=0.14)
            picture = render_meshes([shown], T, intrinsics, self.scene.support)
            canvas.paste(picture, (left + GAP + column * (side + GAP), top + GAP), radius=6)
        y = top + picture_height + GAP + 12
        name = fitted(self.names[index], 14, width // 2)
        chip = canvas.chip((left + GAP, y), name, 14, self.colors[index])
        size_cm = " x ".join(f"{100 * value:.1f}" for value in entry.size_m)
        canvas.text((chip[2] + 10, y + 10), f"{size_cm} cm", 16, INK, anchor="lm")
        bar = (left + GAP, y + 36, left + width - GAP, y + 44)
        canvas.box(bar, UNSEEN, radius=4)
        fraction = min(max(entry.observed_fraction, 0.0), 1.0)
        if fraction > 0.02:
            canvas.box(
                (bar[0], bar[1], bar[0] + round((bar[2] - bar[0]) * fraction), bar[3]), self.colors[index], radius=4
            )
        canvas.text((left + GAP, y + 53), f"{100 * fraction:.0f} % of the surface seen", 14, MUTED)
        canvas.text((left + width - GAP, y + 53), f"score {entry.score:.2f}", 14, MUTED, anchor="ra")

    def _paste_render(
        self,
        canvas: Canvas,
        at: tuple[int, int],
        width: int,
        height: int,
        azimuth: float,
        elevation: float,
        points: np.ndarray,
    ) -> None:
        T, intrinsics = orbit_camera(points, azimuth, elevation, width, height)
        canvas.paste(render_meshes(self.meshes, T, intrinsics, self.scene.support), at, radius=10)

    def _layout_views(self) -> _Panel:
        if not self.views:
            return _Panel(1, 480, 0, 0)
        count = len(self.views)
        columns, width = {1: (1, 560), 2: (1, 400), 3: (1, 300), 4: (2, 330)}.get(
            count, (2, 290 if count <= 6 else 240)
        )
        intrinsics = self.views[0].intrinsics
        aspect = min(max(intrinsics.height / intrinsics.width, 0.5), 1.0)
        return _Panel(columns, width, round(width * aspect), math.ceil(count / columns))

    def _masks(self, view_index: int) -> tuple[Sequence[BoolArray], Sequence[BoolArray]]:
        view = self.views[view_index]
        nothing = np.zeros((view.intrinsics.height, view.intrinsics.width), dtype=bool)
        if not self.observations:
            shown = instance_map(self.meshes, view.T_world_camera, view.intrinsics)
            return [shown == i for i in range(len(self.meshes))], [nothing] * len(self.meshes)
        known = [self.observations.get(entry.id) for entry in self.objects]
        return (
            [nothing if o is None else o.visible_masks[view_index] for o in known],
            [nothing if o is None else o.occlusion_masks[view_index] for o in known],
        )

    def _best_view_pose(self, object_id: int) -> np.ndarray:
        """Pose of the view that shows most of an object; without views, one from the front."""
        if not self.views:
            return np.array([[1, 0, 0, 0], [0, 1, 0, -9], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=float)
        observation = self.observations.get(object_id)
        if observation is None:
            return self.views[0].T_world_camera
        return observation.views[int(np.argmax([mask.sum() for mask in observation.visible_masks]))].T_world_camera


def _coverage_colors(mesh: Mesh, color: Color) -> Mesh:
    """The mesh in `color` where a camera saw it, in the colour of the unseen elsewhere."""
    colors = np.empty((len(mesh.vertices), 3), dtype=np.uint8)
    colors[:] = color
    if mesh.vertex_observed is not None:
        colors[~mesh.vertex_observed] = UNSEEN
    return replace(mesh, vertex_colors=colors)


def _names(objects: Sequence[ReconstructedObject]) -> list[str]:
    """Short, distinct names: the label where only one object has it, else with the id."""
    counts = Counter(entry.label for entry in objects)
    anonymous = {"", "object"}
    return [
        f"#{entry.id}" if entry.label in anonymous else entry.label if counts[entry.label] == 1 else
        f"{entry.label} {entry.id}"
        for entry in objects
    ]  # fmt: skip
