"""The card says what the checkpoint and the table say, and refuses others."""

from __future__ import annotations

import json
from dataclasses import replace

from gena3d_core.checkpoints.presets import random_bundle
from gena3d_core.checkpoints.save import save_bundle
from training.model_card import main

FACTS = {
    "license": "Apache-2.0",
    "command": "python -m training.make_edge --data shards",
    "commit": "abc123",
    "occupancy_temperature": 2.5,
    "data": {"examples": 10, "objects": 7, "objects_by_category": {"mug": 2, "procedural": 5}},
    "flow": {"step": 400, "hours": 1.5, "held_out_loss": 0.4321},
    "vae": {"step": 300, "hours": 0.5, "iou": 0.912},
}
ROW = {"method": "edge", "views": 2, "occlusion": 0.5, "objects": 3, "iou": 0.612, "chamfer": 0.0345, "psnr": 20.0}


def checkpoint(folder, metadata):
    save_bundle(replace(random_bundle("tiny"), metadata=metadata), folder)
    return folder


def test_card_with_tables_of_every_group(tmp_path, capsys):
    folder = checkpoint(tmp_path / "edge", FACTS)
    table = {
        "command": "evaluate objects",
        "arguments": {"split": "val", "hypotheses": 4, "seed": 0},
        "objects": ["a", "b", "c"],
        "rows": [ROW],
        "groups": {"everyday": [{**ROW, "iou": 0.5}]},
    }
    (tmp_path / "rows.json").write_text(json.dumps(table))
    assert main([str(folder), "--table", str(tmp_path / "rows.json")]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "MODEL_CARD.md")
    text = (folder / "MODEL_CARD.md").read_text()
    data = "10 examples of 7 objects: 5 procedural, 2 mug"
    for part in ("abc123", "Apache-2.0", "VAE IoU 0.912", data, "3 objects of the split 'val'"):
        assert part in text
    assert "| edge | 2 | 0.5 | 3 | 0.612 | 3.45 |" in text
    assert "| edge | 2 | 0.5 | 3 | 0.500 | 3.45 |" in text
    assert "PSNR" not in text


def test_refuses_what_it_cannot_describe(tmp_path, capsys):
    folder = checkpoint(tmp_path / "other", {"license": "MIT"})
    assert main([str(folder)]) == 1
    assert "was it made by make_edge?" in capsys.readouterr().err
    (tmp_path / "rows.json").write_text(json.dumps({"command": "evaluate recording"}))
    good = checkpoint(tmp_path / "edge", FACTS)
    assert main([str(good), "--table", str(tmp_path / "rows.json")]) == 1
    assert "is not of `gena3d evaluate objects`" in capsys.readouterr().err
    assert main([str(good)]) == 0
