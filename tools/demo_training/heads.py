"""The two projection heads: features of the frozen towers, computed once, and a contrastive loss.

The epoch count was fixed in advance. Learning rate, batch and dropout were chosen by training on
one of the two training styles and testing on the other. Google's pictures, on which the
demonstration evaluates, took part in no decision.
"""

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from concepts import Concept, picture
from networks import EMBEDDING, TEXT_FEATURES, VISION_FEATURES, Fused
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from edgec.demo.pictures import normalise

EPOCHS = 60
BATCH = 256
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.1
DROP_VISION, DROP_TEXT = 0.3, 0.1
SCALE = 20.0
TRAINING_STYLES = ("twitter", "fluent")
VIEWS = 6
SEED = 2026

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


def view(pixels: Pixels, number: int, index: int) -> Pixels:
    """The drawing itself (view 0), or turned, shrunk, moved and tinted, seeded by both numbers."""
    if number == 0:
        return pixels
    random = np.random.default_rng([SEED, number, index])
    side = len(pixels)
    turned = Image.fromarray(pixels).rotate(
        random.uniform(-20, 20), Image.Resampling.BILINEAR, fillcolor="white"
    )
    shrunk = round(side * random.uniform(0.7, 1.0))
    x, y = (int(n) for n in random.integers(0, side - shrunk + 1, 2))
    paper = Image.new("RGB", (side, side), "white")
    paper.paste(turned.resize((shrunk, shrunk), Image.Resampling.BILINEAR), (x, y))
    ink = (255.0 - np.asarray(paper)) * random.uniform(0.8, 1.2, 3)
    return np.clip(255.0 - ink, 0, 255).astype(np.uint8)


def vision_features(session: onnxruntime.InferenceSession, concepts: list[Concept]) -> Floats:
    """Features of every view of every training picture: [2 * VIEWS, concepts, 1280]."""
    rows = []
    for style in TRAINING_STYLES:
        pictures = [picture(concept, style) for concept in concepts]
        for number in range(VIEWS):
            images = [view(pixels, number, index) for index, pixels in enumerate(pictures)]
            rows.append(_run(session, images))
            print(f"features of {style}, view {number + 1} of {VIEWS}", flush=True)
    return np.stack(rows)


def _run(session: onnxruntime.InferenceSession, images: list[Pixels], batch: int = 32) -> Floats:
    parts = []
    for start in range(0, len(images), batch):
        inputs = [normalise(pixels) for pixels in images[start : start + batch]]
        parts.append(session.run(None, {"image": np.stack(inputs)}))
    return np.concatenate([part[0] for part in parts])


def train(fused: Fused, vision: Floats, text: Floats) -> None:
    """Fit the heads and set them in `fused`, rounded to the float16 in which they are stored.

    vision [views, concepts, 1280] and text [concepts, 384]. Source of the loss: CLIP, Radford
    et al. 2021 (arXiv:2103.00020), figure 3. The features are standardised for training, and
    the standardisation is folded into the heads afterwards.
    """
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    pictures, picture_fold = _standardise(torch.from_numpy(vision))
    captions, caption_fold = _standardise(torch.from_numpy(text)[None])
    vision_head = nn.Linear(VISION_FEATURES, EMBEDDING)
    text_head = nn.Linear(TEXT_FEATURES, EMBEDDING)
    log_scale = nn.Parameter(torch.tensor(SCALE).log())
    weights = [*vision_head.parameters(), *text_head.parameters()]
    groups = [
        {"params": weights, "weight_decay": WEIGHT_DECAY},
        {"params": [log_scale], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, LEARNING_RATE)
    views, count = pictures.shape[:2]
    steps = EPOCHS * -(-count // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    for epoch in range(EPOCHS):
        for rows in torch.randperm(count).split(BATCH):
            chosen = pictures[torch.randint(views, (len(rows),)), rows]
            a = vision_head(functional.dropout(chosen, DROP_VISION))
            b = text_head(functional.dropout(captions[0, rows], DROP_TEXT))
            score = log_scale.exp() * functional.normalize(a) @ functional.normalize(b).T
            truth = torch.arange(len(rows))
            loss = functional.cross_entropy(score, truth) + functional.cross_entropy(score.T, truth)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1} of {EPOCHS}: loss {loss.item() / 2:.3f}", flush=True)
    with torch.no_grad():
        _place(vision_head, picture_fold, fused.vision_head)
        _place(text_head, caption_fold, fused.text_head)
        fused.scale.copy_(log_scale.exp().half().float())


def _standardise(features: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    mean, deviation = features.mean((0, 1)), features.std((0, 1)) + 0.05
    return (features - mean) / deviation, (mean, deviation)


def _place(trained: nn.Linear, fold: tuple[Tensor, Tensor], into: nn.Linear) -> None:
    mean, deviation = fold
    weight = trained.weight / deviation
    into.weight.copy_(weight.half().float())
    into.bias.copy_((trained.bias - weight @ mean).half().float())
