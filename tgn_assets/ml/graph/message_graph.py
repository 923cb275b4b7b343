"""Which edges messages may travel along: none from the future, and none that is itself the answer."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.sampler import HeteroSamplerOutput
from torch_geometric.typing import EdgeType

from tgn_assets.ml.graph.neighbor_index import edge_times
from tgn_assets.ml.schema import EVENT, INTERACTS, REV_INTERACTS, USER


def message_graph(graph: HeteroData, before: int, time_attr: str = "edge_week") -> HeteroData:
    """`graph` with only the edges whose `time_attr` is less than `before`; its nodes stay, and so do their positions.

    Both directions are cut: along its reverse edge a supervised link would come back. `e_id` of the edges left holds
    their positions in `graph`; PyG's loaders slice it along. ValueError if an edge type has no integer `time_attr`.
    """
    kept = {edge_type: (time < before).nonzero().view(-1) for edge_type, time in edge_times(graph, time_attr).items()}
    cut = graph.edge_subgraph(kept)
    for edge_type, edges in kept.items():
        if "e_id" not in graph[edge_type]:
            cut[edge_type].e_id = edges
    return cut


def without_links(
    out: HeteroSamplerOutput,
    graph: HeteroData,
    edge_ids: Mapping[EdgeType, Tensor | None],
    time_attr: str | None,
    time: int | None,
) -> HeteroSamplerOutput:
    """`out` without the edges, in either direction, between the two ends of a link that it was sampled for.

    With `time_attr` only those of the link's very time go (`time` where the sampler was given none); without it, all.
    A negative is such a link, too: if only positives lost their edges, an edge would give a negative away.
    `edge_ids` turns the numbers of `out.edge` into positions in `graph`, for edge types where they differ.
    """
    user, event, link_time = _supervised(out)

    def pair(user: Tensor, event: Tensor) -> Tensor:
        group = out.batch[USER][user] * graph[USER].num_nodes if out.batch else 0
        return (group + out.node[USER][user]) * graph[EVENT].num_nodes + out.node[EVENT][event]

    pairs, where = pair(user, event).unique(return_inverse=True)
    if time_attr:
        moment = torch.full((len(pairs),), time or 0)
        if link_time is not None:
            moment.scatter_(0, where, link_time)

    near = {}
    for kind, ends in ((USER, user), (EVENT, event)):
        mark = torch.zeros(graph[kind].num_nodes, dtype=torch.bool).index_fill_(0, out.node[kind][ends], True)
        near[kind] = mark.index_select(0, out.node[kind])

    for edge_type, (user, event) in (
        (INTERACTS, (out.row[INTERACTS], out.col[INTERACTS])),
        (REV_INTERACTS, (out.col[REV_INTERACTS], out.row[REV_INTERACTS])),
    ):
        # Few edges have both ends among the links' ends, so the exact look-up is cheap.
        maybe = (near[USER].index_select(0, user) & near[EVENT].index_select(0, event)).nonzero().view(-1)
        key = pair(user[maybe], event[maybe])
        place = torch.searchsorted(pairs, key).clamp(max=len(pairs) - 1)
        hit = pairs[place] == key
        if time_attr:
            edge, ids = out.edge[edge_type][maybe].long(), edge_ids.get(edge_type)
            time_of_edge = graph[edge_type][time_attr]
            edge = edge if ids is None else ids[edge]
            hit &= time_of_edge[edge.to(time_of_edge.device)].cpu() == moment[place]
        _drop(out, edge_type, maybe[hit])
    return out


def _supervised(out: HeteroSamplerOutput) -> tuple[Tensor, Tensor, Tensor | None]:
    """The links that `out` was sampled for: local users [n], local events [n], times [n] or None."""
    if len(out.metadata) == 4:
        _, (user, event), _, time = out.metadata
        return user, event, time
    _, user, positive, negative, time = out.metadata
    repeats = 1 + negative.numel() // max(len(user), 1)
    event = torch.cat([positive[:, None], negative.view(len(user), -1)], dim=1).view(-1)
    return user.repeat_interleave(repeats), event, None if time is None else time.repeat_interleave(repeats)


def _drop(out: HeteroSamplerOutput, edge_type: EdgeType, edges: Tensor) -> None:
    keep = torch.ones(len(out.row[edge_type]), dtype=torch.bool).index_fill_(0, edges, False)
    for part in (out.row, out.col, out.edge):
        part[edge_type] = part[edge_type][keep]
    if out.num_sampled_edges is not None:
        hops = keep.split(out.num_sampled_edges[edge_type])
        out.num_sampled_edges[edge_type] = [int(hop.sum()) for hop in hops]
