"""A week as a graph: who interacted with what in it, and what was known of each node when it closed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import duckdb
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from tgn_assets.ml.artifact_io import load_artifact, save_artifact
from tgn_assets.ml.schema import EVENT, INTERACTS, REV_INTERACTS, USER

NODES_SQL = """
    SELECT {kind}_idx AS idx, ln(1 + count(*)) AS interactions, ln(1 + count(DISTINCT {other}_id)) AS partners,
           ln(1 + date_diff('day', min(week), CAST($week AS DATE)) / 7) AS age,
           ln(1 + date_diff('day', max(week), CAST($week AS DATE)) / 7) AS silence
    FROM raw_interactions JOIN {kind}s USING ({kind}_id) WHERE week <= $week GROUP BY ALL ORDER BY idx
"""
EDGES_SQL = """
    SELECT user_idx, event_idx, count(*) AS count, max(epoch(ts)::BIGINT) AS time
    FROM raw_interactions JOIN users USING (user_id) JOIN events USING (event_id)
    WHERE week = $week GROUP BY ALL ORDER BY user_idx, event_idx
"""
NODE_FEATURES = ("interactions", "partners", "age", "silence")
"""Columns of a node's `x`, all ln(1 + n): interactions and distinct partners so far, weeks since the first and last."""


@dataclass(frozen=True)
class Snapshot:
    """`data` is week `week` as HeteroData; its node types hold every node known at the close of that week.

    `data[type].node_idx` [n] is the append-only index of each row and `.x` [n, 4] its `NODE_FEATURES`. Both edge types
    carry `edge_count` [E] (interactions that week) and `edge_time` [E] (the last of them, in unix seconds; the encoder
    does not use it). An empty week has nodes and no edges.
    """

    week: str
    data: HeteroData

    def save(self, directory: Path) -> None:
        """Writes the snapshot to `directory`, replacing what is there; reverse edges follow from the forward ones."""
        tensors = {f"{kind}.{name}": self.data[kind][name] for kind in (USER, EVENT) for name in ("node_idx", "x")}
        tensors |= {name: self.data[INTERACTS][name] for name in ("edge_index", "edge_count", "edge_time")}
        save_artifact(directory, tensors, {"week": self.week})

    @classmethod
    def load(cls, directory: Path) -> Snapshot:
        """Reads what `save` wrote; ArtifactError if it is missing or damaged."""
        tensors, meta = load_artifact(directory)
        return cls(meta["week"], _assemble(tensors))


def read_snapshot(con: duckdb.DuckDBPyConnection, week: str) -> Snapshot:
    """Week `week` from a warehouse, looking at rows of weeks <= `week` and no others."""
    tensors: dict[str, Tensor] = {}
    for kind, other in ((USER, EVENT), (EVENT, USER)):
        nodes = con.execute(NODES_SQL.format(kind=kind, other=other), {"week": week}).torch()
        tensors[f"{kind}.node_idx"] = nodes["idx"]
        tensors[f"{kind}.x"] = torch.stack([nodes[name].float() for name in NODE_FEATURES], dim=1)
    edges = con.execute(EDGES_SQL, {"week": week}).torch()
    ends = [torch.searchsorted(tensors[f"{kind}.node_idx"], edges[f"{kind}_idx"]) for kind in (USER, EVENT)]
    tensors |= {"edge_index": torch.stack(ends), "edge_count": edges["count"].float(), "edge_time": edges["time"]}
    return Snapshot(week, _assemble(tensors))


def _assemble(tensors: dict[str, Tensor]) -> HeteroData:
    data = HeteroData()
    for kind in (USER, EVENT):
        data[kind].node_idx, data[kind].x = tensors[f"{kind}.node_idx"], tensors[f"{kind}.x"]
        data[kind].num_nodes = len(data[kind].node_idx)
    for edge_type, index in ((INTERACTS, tensors["edge_index"]), (REV_INTERACTS, tensors["edge_index"].flip(0))):
        data[edge_type].edge_index = index
        data[edge_type].edge_count, data[edge_type].edge_time = tensors["edge_count"], tensors["edge_time"]
    return data
