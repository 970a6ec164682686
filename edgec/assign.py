"""Stage 4: a decision with a reason for every node. Data from the target's table, no edits.

A part gets the first scheme of its kind's ladder; a node of it gets that scheme where the table
has a form for it. The policy overrides per node, op type or part, in this order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import onnx_ir as ir

from edgec.activations import absorbable, computes
from edgec.errors import UnsupportedError
from edgec.graphs import (
    QUANTIZERS,
    WEIGHTED,
    attribute,
    constant,
    elements,
    is_constant,
    opset,
    weight,
)
from edgec.policy import match, recovery_plan
from edgec.possible import custom, in_float, possible
from edgec.route import Routes, allowed, likely
from edgec.sums import between_products
from edgec.types import (
    Decision,
    Graph,
    OpRule,
    Part,
    Plan,
    Policy,
    Revision,
    Runtime,
    Scheme,
    Target,
)

EMBEDDING = 1 << 16  # elements from which an embedding table is worth INT8
SMALL = 16  # rows or columns below which an INT8 matrix product gains nothing
SHARED = "shared"  # the part of nodes that depend on constants or shapes alone
INTEGER_OPS = QUANTIZERS | {
    "QLinearConv",
    "QLinearMatMul",
    "MatMulInteger",
    "ConvInteger",
    "MatMulNBits",
}
FLOAT_SCHEMES = {Scheme.FLOAT32, Scheme.BFLOAT16, Scheme.FLOAT16}
SMOOTHED = {"MatMul", "Gemm"}  # ops whose input's channels can be scaled
BETWEEN = {"Mul", "Sub", "Reshape", "Transpose"}  # what may scale a weight after its Cast


def assign(
    graph: Graph,
    parts: Sequence[Part],
    policy: Policy,
    target: Target,
    *,
    data: bool,
    routes: Routes | None = None,
) -> Plan:
    """The first plan. `data`: whether there are samples to calibrate on.

    `routes`: the runtime of each part; None leaves it to the table.
    """
    nodes = {str(node.name): node for node in graph.model.graph}
    routes = routes or likely(parts, graph, policy, target, data=data)
    ladders, spares = {}, {}
    for part in parts:
        own = [nodes[name] for name in part.nodes]
        steps = {
            runtime.name: ladder(part, own, policy, runtime, data)
            for runtime in allowed(part, graph, policy, target)
        }
        ladders[part.name] = steps.pop(routes[part.name])
        spares[part.name] = steps
    plan = Plan(
        parts=tuple(parts),
        decisions={},
        runtimes=routes,
        schemes={name: steps[0] for name, steps in ladders.items()},
        ladders={name: steps[1:] for name, steps in ladders.items()},
        spares=spares,
        recovery={part.name: recovery_plan(part, policy, nodes) for part in parts},
        joining=policy.joining,
    )
    return decide(graph, plan, policy, target, data=data)


def decide(graph: Graph, plan: Plan, policy: Policy, target: Target, *, data: bool) -> Plan:
    """The same plan with the decisions that its schemes and pinned nodes lead to."""
    part_of = {node: part for part in plan.parts for node in part.nodes}
    reverted: dict[str, Revision] = {}
    for one in plan.revisions:
        if one.runtime:
            reverted.pop(one.part, None)  # what it stepped down for was another runtime's
        elif not one.nodes:
            reverted[one.part] = one
    decisions = _decisions(graph, plan, policy, target, part_of, reverted, data, frozenset())
    runtimes = {name: target.runtime(chosen) for name, chosen in plan.runtimes.items()}
    if sums := between_products(graph.model, decisions, runtimes):
        decisions = _decisions(graph, plan, policy, target, part_of, reverted, data, sums)
    schemes = {
        part.name: _effective(part, plan.schemes[part.name], runtimes[part.name], decisions)
        for part in plan.parts
    }
    ladders = {
        name: steps[1:] if steps[:1] == (schemes[name],) else steps
        for name, steps in plan.ladders.items()
    }
    return replace(plan, decisions=decisions, schemes=schemes, ladders=ladders)


def _decisions(
    graph: Graph,
    plan: Plan,
    policy: Policy,
    target: Target,
    part_of: Mapping[str, Part],
    reverted: Mapping[str, Revision],
    data: bool,
    sums: frozenset[str],
) -> dict[str, Decision]:
    """For every node. `reverted`: by part; `sums`: INT8 whatever made their inputs."""
    decisions: dict[str, Decision] = {}
    version = opset(graph.model)
    for node in graph.model.graph:
        name = str(node.name)
        part = part_of.get(name)
        runtime = target.runtimes[0] if part is None else target.runtime(plan.runtimes[part.name])
        if part is None:
            verdict = (Scheme.FLOAT32, "depends on constants and shapes alone", "the graph")
        elif name in plan.pinned:
            verdict = (runtime.precision, plan.pinned[name], "revision")
        else:
            revision = reverted.get(part.name)
            verdict = (
                _verdict(node, part, plan.schemes[part.name], policy, runtime, data)
                if revision is None
                else _revised(node, part, revision, policy, runtime, data)
            )
            static = verdict[0] is Scheme.INT8_STATIC
            if static and name not in sums and (why := _left_float(node, decisions, runtime)):
                verdict = (runtime.precision, why, "Q/DQ placement")
        verdict = custom(node, runtime) or verdict
        scheme, reason, evidence = in_float(node, verdict, runtime, version)
        decisions[name] = Decision(
            node=name,
            op_type=node.op_type,
            part=SHARED if part is None else part.name,
            scheme=scheme,
            backend=runtime.backend,
            device=runtime.device,
            reason=reason,
            evidence=evidence,
            smooth=part is not None
            and runtime.ladders[part.kind].smooth
            and node.op_type in SMOOTHED
            and scheme in (Scheme.INT8_STATIC, Scheme.INT8_DYNAMIC),
        )
    return decisions


def _effective(
    part: Part, scheme: Scheme, runtime: Runtime, decisions: Mapping[str, Decision]
) -> Scheme:
    """A part of which no node can have its scheme is what its nodes are: float, or INT8 weights."""
    found = {decisions[node].scheme for node in part.nodes} - FLOAT_SCHEMES
    if scheme in FLOAT_SCHEMES or scheme in found:
        return scheme
    if scheme is Scheme.INT8_DYNAMIC and found == {Scheme.INT8_WEIGHT_ONLY}:
        return Scheme.INT8_WEIGHT_ONLY
    return scheme if found else runtime.precision


def ladder(
    part: Part, nodes: Sequence[ir.Node], policy: Policy, runtime: Runtime, data: bool
) -> tuple[Scheme, ...]:
    """The schemes of a part on a runtime, from the fastest to the safest."""
    if any(_is_quantized(node) for node in nodes):
        return (Scheme.KEPT,)
    row = runtime.ladders[part.kind]
    steps = row.with_data if data else row.without_data
    wanted = match(policy.parts, part.name)
    if wanted is None or wanted.scheme is None:
        return steps
    if wanted.scheme is Scheme.INT8_STATIC and not data:
        raise UnsupportedError(
            f"policy {policy.source}: part {part.name} is to be int8_static, which needs data",
            hint="give --data FOLDER with representative samples, or choose int8_dynamic",
        )
    first, _ = possible(wanted.scheme, runtime, part, data=data)
    rest = steps[steps.index(first) + 1 :] if first in steps else steps[-1:]
    return (first, *(scheme for scheme in rest if scheme is not first))


def _revised(
    node: ir.Node, part: Part, revision: Revision, policy: Policy, runtime: Runtime, data: bool
) -> tuple[Scheme, str, str]:
    """For a node of a part that a check reverted: of the policy, only wishes for float count."""
    safe = Policy(
        ops=tuple(one for one in policy.ops if one.scheme is Scheme.FLOAT32),
        nodes=tuple(one for one in policy.nodes if one.scheme is Scheme.FLOAT32),
        source=policy.source,
    )
    scheme, reason, evidence = _verdict(node, part, revision.after, safe, runtime, data)
    if scheme is revision.after and not evidence.startswith(policy.source + ","):
        return scheme, f"reverted from {revision.before}: {revision.reason}", "revision"
    return scheme, reason, evidence


def _verdict(
    node: ir.Node, part: Part, scheme: Scheme, policy: Policy, runtime: Runtime, data: bool
) -> tuple[Scheme, str, str]:
    """Scheme, reason and evidence for one node of a part that has `scheme`."""
    row = runtime.ladders[part.kind]
    reason, evidence = row.reason, f"{runtime.name}, ladders.{part.kind} ({row.confidence})"
    if scheme is Scheme.KEPT:
        return scheme, "already quantized in the source model: kept as it is", "the graph"
    for overrides, key, table in (
        (policy.nodes, str(node.name), "nodes"),
        (policy.ops, node.op_type, "ops"),
        (policy.parts, part.name, "parts"),
    ):
        found = match(overrides, key)
        if found is None or found.scheme is None:
            continue
        wish, why = possible(found.scheme, runtime, part, data=data)
        scheme = scheme if table == "parts" else wish
        reason = f"{why}: {scheme} instead" if why else "the policy asks for it"
        evidence = f"{policy.source}, {table}.{found.pattern}"
        break
    if scheme in FLOAT_SCHEMES:
        return scheme, reason, evidence
    rule = runtime.ops.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if rule is None:
        return runtime.precision, f"{node.op_type} has no INT8 form on {runtime.name}", "ops table"
    if scheme is Scheme.INT8_DYNAMIC and (few := _few_inputs(node, rule)):
        scheme, reason, evidence = (
            Scheme.INT8_WEIGHT_ONLY,
            few,
            f"{runtime.name}, ops.{rule.op_type}",
        )
    refusal = _refusal(node, rule, scheme, row.int8_ops, data)
    if refusal is None:
        return scheme, reason, evidence
    if node.op_type == "Gather" and Scheme.INT8_WEIGHT_ONLY in rule.schemes:
        refusal = _no_table(node)
        if refusal is None:
            return Scheme.INT8_WEIGHT_ONLY, rule.note, f"{runtime.name}, ops.Gather"
    return runtime.precision, refusal, f"{runtime.name}, ops.{node.op_type}: {rule.note}"


def _refusal(
    node: ir.Node, rule: OpRule, scheme: Scheme, int8_ops: frozenset[str], data: bool
) -> str | None:
    """Why a node cannot have `scheme`, or None if it can."""
    if node.op_type == "Gather":
        return _no_table(node) if scheme is Scheme.INT8_WEIGHT_ONLY else f"not {scheme}"
    if scheme not in rule.schemes:
        return f"{node.op_type} has no {scheme} form here"
    if scheme is Scheme.INT8_STATIC:
        if not data:
            return "static INT8 needs calibration data"
        if node.op_type not in int8_ops:
            return f"static INT8 of {node.op_type} costs more than it gains in such a part"
    if any(
        v is not None and v.dtype in (ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BFLOAT16)
        for v in node.inputs
    ):
        return "it does not compute in float32"
    if any(v is not None and v.dtype is not None and v.dtype.is_integer() for v in node.inputs[:1]):
        return "it computes on integers"
    return _weight_refusal(node, scheme) if node.op_type in WEIGHTED else None


def _weight_refusal(node: ir.Node, scheme: Scheme) -> str | None:
    value = weight(node)
    if value is None:
        return "both of its inputs are activations"
    shape = value.shape
    if shape is None or any(not isinstance(dim, int) for dim in shape):
        return "the shape of its weight is unknown"
    sizes = [int(str(dim)) for dim in shape]
    if node.op_type in ("MatMul", "Gemm"):
        if len(sizes) != 2:
            return f"its weight has {len(sizes)} dimensions, INT8 wants 2"
        if min(sizes) < SMALL:
            return f"a {sizes[0]}x{sizes[1]} weight is too small to gain from INT8"
    if node.op_type == "Gemm" and scheme is not Scheme.INT8_WEIGHT_ONLY:
        scaled = any(
            (a := node.attributes.get(key)) is not None and a.as_float() != 1.0
            for key in ("alpha", "beta")
        )
        turned = node.attributes.get("transA")
        if scaled or (turned is not None and turned.as_int()):
            return "alpha, beta or transA is not the default"
    if node.op_type == "Gemm" and scheme is not Scheme.INT8_DYNAMIC:
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        columns = sizes[0 if attribute(node, "transB", 0) else 1]
        if bias is not None and not _is_per_column(bias, columns):
            return "its bias is not one constant per column"
    if node.op_type == "Conv" and scheme is Scheme.INT8_STATIC:
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if bias is not None and not is_constant(bias):
            return "its bias is not one constant per channel"
    if node.op_type == "Conv" and len(sizes) != 4 and scheme is Scheme.INT8_STATIC:
        return f"a {len(sizes) - 2}-D convolution has no INT8 kernel"
    return None


def _few_inputs(node: ir.Node, rule: OpRule) -> str:
    """Why dynamic INT8 would leave a product's activations in float, or an empty text."""
    value = weight(node)
    if value is None or value.shape is None or len(value.shape) != 2:
        return ""
    turned = node.op_type == "Gemm" and attribute(node, "transB", 0) != 0
    given = value.shape[int(turned)]
    if not isinstance(given, int) or given >= rule.dynamic_inputs:
        return ""
    least = rule.dynamic_inputs
    return f"{given} inputs, and below {least} its activations stay in float: INT8 weights alone"


def _is_per_column(bias: ir.Value, columns: int) -> bool:
    array = constant(bias)
    return array is not None and array.shape in ((columns,), (1, columns))


def _no_table(node: ir.Node) -> str | None:
    """Why a Gather is no lookup in a large float table, or None if it is."""
    table = node.inputs[0]
    axis = node.attributes.get("axis")
    if table is None or not is_constant(table) or table.dtype != ir.DataType.FLOAT:
        return "it does not look up a float table"
    if (axis is not None and axis.as_int() != 0) or table.shape is None or len(table.shape) != 2:
        return "its table is not a matrix of rows"
    if elements(table) < EMBEDDING:
        return f"its table has {elements(table)} elements, too few to gain"
    return None


def _joins_int8(node: ir.Node, decisions: Mapping[str, Decision], runtime: Runtime) -> bool:
    """Whether a static node has weights, or only gets what INT8 nodes before it made."""
    if node.op_type in WEIGHTED:
        return True
    rule = runtime.ops[node.op_type]
    data = node.inputs[:1] if rule.follows else node.inputs
    producers = [v.producer() for v in data if v is not None and not is_constant(v)]
    if not producers or not all(_static(producer, decisions) for producer in producers):
        return False
    if node.op_type in ("Relu", "Clip"):
        return absorbable(node, runtime)
    return not any(
        is_constant(v) and (array := constant(v)) is not None and array.dtype.kind != "f"
        for v in data
    )


def _left_float(node: ir.Node, decisions: Mapping[str, Decision], runtime: Runtime) -> str:
    """Why a static node stays in float where it stands, or an empty text."""
    if _static(computes(node, runtime), decisions):
        return "the kernel of the convolution before it computes it: its range comes after"
    joins = _joins_int8(node, decisions, runtime)
    return "" if joins else "its inputs are float: INT8 would only add conversions"


def _static(node: ir.Node | None, decisions: Mapping[str, Decision]) -> bool:
    if node is None:
        return False
    found = decisions.get(str(node.name))
    return found is not None and found.scheme is Scheme.INT8_STATIC


def _is_quantized(node: ir.Node) -> bool:
    """Whether a node is an INT8 op, or reads what Q/DQ or a Cast of INT8 constants made."""
    stack, seen = [node], {node}
    while stack:
        one = stack.pop()
        if one.op_type in INTEGER_OPS or _casts_int8(one):
            return True
        if one is node or one.op_type in BETWEEN:
            before = {v.producer() for v in one.inputs if v is not None} - {None} - seen
            stack += before  # type: ignore[arg-type]
            seen |= before  # type: ignore[arg-type]
    return False


def _casts_int8(node: ir.Node) -> bool:
    """A weight-only model of the plainest kind: Cast(INT8 constant) to float."""
    value = node.inputs[0] if node.inputs else None
    small = (ir.DataType.INT8, ir.DataType.UINT8)
    return (
        node.op_type == "Cast" and value is not None and value.dtype in small and is_constant(value)
    )
