"""A policy says what the user wants in a few lines; the most specific line wins."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import graphs
import pytest
import small

from edgec.build import Job, prepare
from edgec.errors import InputError, UnsupportedError
from edgec.policy import load_policy
from edgec.types import Joining, Limits, Method, Override, Policy, RecoveryPlan, Scheme

TEXT = """[parts.vision]
scheme = "int8_static"
method = "percentile"
bias_correction = false
smoothing = 0.5
rounding = "nearest"
mask_aware_ranges = false
[parts."t*"]
scheme = "float32"
method = "auto"
smoothing = "auto"
rounding = "gptq"
bias_correction = true
[parts.audio]
smoothing = false
[ops.Softmax]
scheme = "float32"
[nodes."*/layers.0/*"]
scheme = "float32"
[values."*/layers.0/*"]
method = "entropy"
[limits]
part_sqnr_db = 20
cosine = false
[engines]
joining = "per-part"
"""


PART_KEYS = (
    "the keys are scheme, runtime, method, bias_correction, smoothing, rounding, mask_aware_ranges"
)


def write(folder: Path, text: str) -> Path:
    path = folder / "policy.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_without_a_file() -> None:
    assert load_policy(None) == Policy()
    assert Policy().limits == Limits(part_sqnr_db=12.0, cosine=0.97)


def test_all_keys(tmp_path: Path) -> None:
    found = load_policy(write(tmp_path, TEXT))
    assert found.parts == (
        Override(
            "vision",
            Scheme.INT8_STATIC,
            methods=(Method.PERCENTILE,),
            bias=False,
            strengths=(0.5,),
            gptq=False,
            mask_aware=False,
        ),
        Override("t*", Scheme.FLOAT32, methods=tuple(Method), bias=True, gptq=True),
        Override("audio", strengths=()),
    )
    assert found.ops == (Override("Softmax", Scheme.FLOAT32),)
    assert found.nodes == (Override("*/layers.0/*", Scheme.FLOAT32),)
    assert found.values == (Override("*/layers.0/*", methods=(Method.ENTROPY,)),)
    assert found.limits == Limits(part_sqnr_db=20.0, cosine=None)
    assert found.joining is Joining.PER_PART
    assert found.source == "policy.toml"


def test_a_hint_reaches_the_runtimes_that_know_it(tmp_path: Path) -> None:
    path = write(tmp_path, '[engines]\nhint = "throughput"\n')
    found = prepare(Job(graphs.path("mlp"), target="x86-vnni", policy=path)).target
    hints = {one.name: one.settings.get("hint") for one in found.runtimes}
    assert hints == {"onnxruntime": None, "openvino": "throughput"}
    plain = prepare(Job(graphs.path("mlp"), target="x86-vnni")).target
    assert plain.runtime("openvino").settings["hint"] == "latency"


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    found = load_policy(write(tmp_path, ""))
    assert found == Policy(source="policy.toml")


@pytest.mark.parametrize(
    ("text", "where", "hint"),
    [
        (
            "[part.vision]\nscheme = 'float32'",
            "part",
            "parts, ops, nodes, values, names, limits, engines and goals",
        ),
        ("parts = 3", "parts", 'write [parts."…"]'),
        ("[parts]\nvision = 'float32'", "parts.vision", PART_KEYS),
        ("[parts.vision]", "parts.vision", PART_KEYS),
        (
            "[parts.vision]\nschema = 'float32'",
            "parts.vision.schema",
            PART_KEYS,
        ),
        (
            "[parts.vision]\nscheme = 'int7'",
            "parts.vision.scheme",
            "choose one of float32, bfloat16, float16, int8_static, int8_dynamic, int8_weight_only",
        ),
        ("[parts.vision]\nscheme = 'kept'", "parts.vision.scheme", "choose one of float32"),
        (
            "[parts.vision]\nmethod = 'best'",
            "parts.vision.method",
            "choose one of minmax, moving_average, percentile, mse, entropy, auto",
        ),
        (
            "[parts.text]\nscheme = 'float32'\nembeddings = false",
            "parts.text.embeddings",
            PART_KEYS,
        ),
        ("[ops.Add]\nmethod = 'minmax'", "ops.Add.method", "the keys are scheme"),
        ("[nodes.n]\nrounding = 'gptq'", "nodes.n.rounding", "the keys are scheme"),
        ("[values.v]\nscheme = 'float32'", "values.v.scheme", "the keys are method"),
        ("[values.v]\nmethod = 3", "values.v.method", "choose one of minmax"),
        ("[values.v]\nmethod = ['mse']", "values.v.method", "choose one of minmax"),
        ("[values.v]\nmethod = 'auto'", "values.v.method", "choose one of minmax"),
        ("[parts.v]\nbias_correction = 'yes'", "parts.v.bias_correction", "true or false"),
        ("[parts.v]\nmask_aware_ranges = 1", "parts.v.mask_aware_ranges", "true or false"),
        ("[parts.v]\nrounding = true", "parts.v.rounding", "choose one of gptq, nearest"),
        *(
            (f"[parts.v]\nsmoothing = {wrong}", "parts.v.smoothing", "between 0 and 1")
            for wrong in ("true", "0", "1", "-0.5", "nan", "inf", "'best'", "[0.5]")
        ),
        ("[nodes.n]\nscheme = 8", "nodes.n.scheme", "choose one of"),
        ("[ops.Add]\nruntime = 'openvino'", "ops.Add.runtime", "the keys are scheme"),
        ("[parts.vision]\nruntime = 3", "parts.vision.runtime", "by its name"),
        ("[engines]\nhint = 'fast'", "engines.hint", "choose one of latency, throughput"),
        ("[limits]\nsqnr = 3", "limits.sqnr", "the keys are part_sqnr_db, cosine"),
        ("limits = 3", "limits", "the keys are part_sqnr_db, cosine"),
        ("[limits]\ncosine = 'high'", "limits.cosine", "a number, or false"),
        ("[limits]\ncosine = true", "limits.cosine", "a number, or false"),
        ("[engines]\njoin = 'no'", "engines.join", "the keys are joining, hint"),
        ("[engines]\njoining = 'apart'", "engines.joining", "choose one of together, per-part"),
    ],
)
def test_a_wrong_key_or_value_is_named(text: str, where: str, hint: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        load_policy(path)
    assert caught.value.message == f"{path}: {where} is not a setting of a policy"
    assert hint in caught.value.hint
    assert caught.value.exit_code == 3


def test_a_file_that_is_no_toml(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"policy\.toml: Expected '\]'"):
        load_policy(write(tmp_path, "[parts"))


def test_a_file_that_is_missing_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.toml"):
        load_policy(tmp_path / "nothing.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"bytes\.toml"):
        load_policy(tmp_path / "bytes.toml")


# What a policy does to a multimodal model; it has at most twenty lines.

OVERRIDES = """[parts.text]
scheme = "int8_weight_only"
[parts."v*"]
method = "percentile"
[ops.Gemm]
scheme = "float32"
[nodes."/text/layers.0/*"]
scheme = "int8_dynamic"
[nodes."/text/layers.0/attention/query/MatMul"]
scheme = "float32"
"""


def test_the_method_of_a_glob_wins_over_the_recipe(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text('extends = "tensors"\nmethod = "mse"\n', encoding="utf-8")
    job = Job(
        graphs.path("clip_torchscript"),
        target="generic",
        recipe=str(recipe),
        policy=write(tmp_path, OVERRIDES),
    )
    assert {n: one.methods for n, one in prepare(job).plan.recovery.items()} == {
        "text": (Method.MSE,),
        "vision": (Method.PERCENTILE,),
        "fusion": (Method.MSE,),
    }


RECOVERY = """[parts."*"]
method = "auto"
smoothing = 0.6
[parts.text]
smoothing = false
rounding = "nearest"
bias_correction = false
mask_aware_ranges = false
[values."/text/layers.0/*"]
method = "entropy"
[values."/text/layers.0/attention/query/MatMul_output_0"]
method = "mse"
"""


def test_what_a_policy_states_of_recovery_and_the_defaults_of_the_rest(tmp_path: Path) -> None:
    path = write(tmp_path, RECOVERY)
    job = Job(graphs.path("clip_torchscript"), target="generic", policy=path)
    recovery = prepare(job).plan.recovery
    assert recovery["vision"] == RecoveryPlan(methods=tuple(Method), strengths=(0.6,))
    text = recovery["text"]  # the exact name wins as a whole: what it does not state is the default
    assert replace(text, values={}) == RecoveryPlan(
        methods=tuple(Method), bias=False, strengths=(), gptq=False, mask_aware=False
    )
    query = "/text/layers.0/attention/query/MatMul_output_0"
    assert text.values[query] is Method.MSE
    others = {name: method for name, method in text.values.items() if name != query}
    assert len(others) > 10
    assert all(name.startswith("/text/layers.0/") for name in others)
    assert set(others.values()) == {Method.ENTROPY}


def test_without_a_policy_every_stage_may_be_tried() -> None:
    plan = small.plan(small.fixture("clip_torchscript"), "x86-vnni")
    assert set(plan.recovery) == {part.name for part in plan.parts}
    assert set(map(repr, plan.recovery.values())) == {repr(RecoveryPlan())}
    assert RecoveryPlan() == RecoveryPlan(
        (Method.MINMAX,), {}, bias=True, strengths=(0.8, 0.7, 0.9), gptq=True, mask_aware=True
    )


def test_a_policy_overrides_parts_ops_and_nodes(tmp_path: Path) -> None:
    assert len(OVERRIDES.splitlines()) <= 20
    policy = load_policy(write(tmp_path, OVERRIDES))
    found = small.fixture("clip_torchscript")
    plan = small.plan(found, "x86-vnni", policy)
    default = small.plan(found, "x86-vnni")
    assert plan.schemes["text"] is Scheme.INT8_WEIGHT_ONLY
    assert plan.ladders["text"] == (Scheme.FLOAT32,)
    assert plan.schemes["vision"] is default.schemes["vision"]
    assert {n: one.methods for n, one in plan.recovery.items()} == {
        "text": (Method.MINMAX,),
        "vision": (Method.PERCENTILE,),
        "fusion": (Method.MINMAX,),
    }
    first = {n for n in plan.decisions if n.startswith("/text/layers.0/")}
    products = [n for n in plan.decisions if plan.decisions[n].op_type == "MatMul"]
    weighted = [n for n in products if default.decisions[n].scheme is Scheme.INT8_DYNAMIC]
    assert first & set(weighted)
    for name in weighted:
        decision = plan.decisions[name]
        if name == "/text/layers.0/attention/query/MatMul":
            assert decision.scheme is Scheme.FLOAT32
            assert decision.evidence == f"policy.toml, nodes.{name}"
        elif name in first:
            assert decision.scheme is Scheme.INT8_DYNAMIC
            assert decision.evidence == "policy.toml, nodes./text/layers.0/*"
        else:
            assert decision.scheme is Scheme.INT8_WEIGHT_ONLY
            assert decision.evidence == "policy.toml, parts.text"
        assert decision.reason == "the policy asks for it"
    for decision in plan.decisions.values():
        if decision.op_type == "Gemm":
            assert decision.scheme is Scheme.FLOAT32
            assert decision.evidence == "policy.toml, ops.Gemm"


@pytest.mark.parametrize(
    ("policy", "scheme", "evidence"),
    [
        ({}, Scheme.INT8_DYNAMIC, "onnxruntime, ladders.mlp (inferred)"),
        ({"parts": Scheme.FLOAT32}, Scheme.FLOAT32, "defaults, parts.model"),
        (
            {"parts": Scheme.FLOAT32, "ops": Scheme.INT8_WEIGHT_ONLY},
            Scheme.INT8_WEIGHT_ONLY,
            "defaults, ops.Gemm",
        ),
        (
            {
                "parts": Scheme.FLOAT32,
                "ops": Scheme.INT8_WEIGHT_ONLY,
                "nodes": Scheme.INT8_DYNAMIC,
            },
            Scheme.INT8_DYNAMIC,
            "defaults, nodes.one",
        ),
        (
            {"nodes": Scheme.FLOAT32, "ops": Scheme.INT8_DYNAMIC},
            Scheme.FLOAT32,
            "defaults, nodes.one",
        ),
    ],
)
def test_node_before_op_before_part(
    policy: dict[str, Scheme], scheme: Scheme, evidence: str
) -> None:
    pattern = {"parts": "model", "ops": "Gemm", "nodes": "one"}
    made = small.model(
        "g (float[2,32] x) => (float[2,32] y) { [one] y = Gemm (x, w, b) }",
        w=small.normal(0, 32, 32),
        b=small.normal(1, 32),
    )
    overrides = {key: (Override(pattern[key], value),) for key, value in policy.items()}
    plan = small.plan(small.canonical(made), "x86-vnni", Policy(**overrides))  # type: ignore[arg-type]
    assert plan.decisions["one"].scheme is scheme
    assert plan.decisions["one"].evidence == evidence


def test_an_exact_name_before_a_glob_before_a_later_glob() -> None:
    overrides = (
        Override("m*", Scheme.INT8_WEIGHT_ONLY),
        Override("*", Scheme.INT8_DYNAMIC),
    )
    found = small.fixture("mlp")
    assert small.plan(found, "generic", Policy(parts=overrides)).schemes["model"] is (
        Scheme.INT8_WEIGHT_ONLY
    )
    exact = (*overrides, Override("model", Scheme.FLOAT32))
    assert small.plan(found, "generic", Policy(parts=exact)).schemes["model"] is Scheme.FLOAT32


def test_static_without_data_is_refused() -> None:
    policy = Policy(parts=(Override("vision", Scheme.INT8_STATIC),), source="p.toml")
    with pytest.raises(
        UnsupportedError, match=r"p\.toml: part vision is to be int8_static"
    ) as caught:
        small.plan(small.fixture("cnn"), "x86-vnni", policy, data=False)
    assert "--data" in caught.value.hint
    assert caught.value.exit_code == 4


def test_a_scheme_beyond_the_ladder_can_still_fall_back() -> None:
    policy = Policy(parts=(Override("vision", Scheme.INT8_STATIC),))
    plan = small.plan(small.fixture("cnn"), "generic", policy)
    assert plan.schemes["vision"] is Scheme.INT8_STATIC
    assert plan.ladders["vision"] == (Scheme.FLOAT32,)


@pytest.mark.parametrize(
    ("text", "where", "hint"),
    [
        ("[parts.visoin]", "parts.visoin", "vision"),
        ('[parts."text*"]', "parts.text*", "vision"),
        ('[nodes."/stem/*"]', "nodes./stem/*", "edgec plan"),
        ('[values."/stem/*"]', "values./stem/*", "edgec plan"),
    ],
)
def test_an_override_that_matches_nothing_is_refused(
    text: str, where: str, hint: str, tmp_path: Path
) -> None:
    key = "method" if "values" in text else "scheme"
    setting = {"method": "mse", "scheme": "float32"}[key]
    path = write(tmp_path, f'{text}\n{key} = "{setting}"\n')
    with pytest.raises(InputError) as caught:
        prepare(Job(graphs.path("cnn"), target="generic", policy=path))
    assert caught.value.message == f"policy.toml: {where} matches nothing in this model"
    assert hint in caught.value.hint


def test_an_op_type_that_the_model_lacks_is_no_mistake(tmp_path: Path) -> None:
    path = write(tmp_path, '[ops.Softmax]\nscheme = "float32"\n')
    assert prepare(Job(graphs.path("cnn"), target="generic", policy=path)).policy.ops


def test_names_of_parts(tmp_path: Path) -> None:
    """A part is found as vision, and is camera from then on: in the plan and in the policy."""
    text = '[names]\nvision = "camera"\n[parts.camera]\nscheme = "float32"\n'
    policy = write(tmp_path, text)
    assert load_policy(policy).names == {"vision": "camera"}
    made = prepare(Job(model=graphs.path("clip_torchscript"), target="x86-vnni", policy=policy))
    assert [part.name for part in made.parts] == ["camera", "text", "fusion"]
    assert made.plan.schemes["camera"] is Scheme.FLOAT32
    assert {decision.part for decision in made.plan.decisions.values()} >= {"camera", "text"}
    policy = write(tmp_path, '[names]\nsound = "microphone"\n')
    with pytest.raises(InputError, match=r"names\.sound matches no part"):
        prepare(Job(model=graphs.path("clip_torchscript"), target="x86-vnni", policy=policy))


@pytest.mark.parametrize("name", ["../vision", "a b", "", "shared", "main", "1st", "x" * 41])
def test_names_that_no_file_can_have(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"names\.vision is not a setting") as caught:
        load_policy(write(tmp_path, f'[names]\nvision = "{name}"\n'))
    assert "letters, digits" in caught.value.hint


@pytest.mark.parametrize("text", ['names = "vision"', "[names]\nvision = 1"])
def test_names_are_a_table_of_texts(text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a setting of a policy"):
        load_policy(write(tmp_path, text))


def test_two_parts_cannot_have_one_name(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_policy(write(tmp_path, '[names]\nvision = "a"\ntext = "a"\n'))
    assert caught.value.hint == "two parts cannot have one name"
