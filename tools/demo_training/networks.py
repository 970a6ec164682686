"""The networks in torch: a plain BERT for MiniLM, and the fused model that is exported."""

import torch
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn
from torch.nn import functional

WIDTH, HEADS, LAYERS, FEED_FORWARD = 384, 12, 6, 1536
VOCABULARY, POSITIONS = 30522, 512
VISION_FEATURES, TEXT_FEATURES, EMBEDDING = 1280, WIDTH, 256


class Embeddings(nn.Module):
    """BERT's input: word + position + type, normalised. [b, t] -> [b, t, 384]."""

    def __init__(self) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(VOCABULARY, WIDTH)
        self.position_embeddings = nn.Embedding(POSITIONS, WIDTH)
        self.token_type_embeddings = nn.Embedding(2, WIDTH)
        self.LayerNorm = nn.LayerNorm(WIDTH, eps=1e-12)

    def forward(self, ids: Tensor) -> Tensor:
        places = torch.arange(ids.shape[1], device=ids.device).unsqueeze(0)
        types = torch.zeros_like(ids)
        words = self.word_embeddings(ids) + self.token_type_embeddings(types)
        return self.LayerNorm(words + self.position_embeddings(places))


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(WIDTH, WIDTH)
        self.key = nn.Linear(WIDTH, WIDTH)
        self.value = nn.Linear(WIDTH, WIDTH)

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        size = hidden.shape[0], hidden.shape[1], HEADS, WIDTH // HEADS
        q, k, v = (f(hidden).view(size).transpose(1, 2) for f in (self.query, self.key, self.value))
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return mixed.transpose(1, 2).reshape(hidden.shape)


class Residual(nn.Module):
    """LayerNorm(dense(x) + residual), named as BERT names it."""

    def __init__(self, inner: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inner, WIDTH)
        self.LayerNorm = nn.LayerNorm(WIDTH, eps=1e-12)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(x) + residual)


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.ModuleDict({"self": SelfAttention(), "output": Residual(WIDTH)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(WIDTH, FEED_FORWARD)})
        self.output = Residual(FEED_FORWARD)

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        hidden = self.attention["output"](self.attention["self"](hidden, bias), hidden)
        return self.output(functional.gelu(self.intermediate["dense"](hidden)), hidden)


class MiniLM(nn.Module):
    """all-MiniLM-L6-v2 with its mask-aware mean pool: ids, mask [b, t] -> [b, 384]."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = Embeddings()
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(Layer() for _ in range(LAYERS))})

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        kept = mask.to(torch.float32)
        bias = (1.0 - kept)[:, None, None, :] * torch.finfo(torch.float32).min
        hidden = self.embeddings(ids)
        for layer in self.encoder["layer"]:
            hidden = layer(hidden, bias)
        weights = kept.unsqueeze(-1)
        return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)


class Vision(EfficientNet):
    """EfficientNet-Lite0 up to its global average pool: [b, 3, 224, 224] -> [b, 1280]."""

    def forward(self, image: Tensor) -> Tensor:
        return self.extract_features(image).mean((2, 3))


class Fused(nn.Module):
    """Both towers, a linear head each, and the scaled cosine of every picture and caption."""

    def __init__(self, vision: Vision, text: MiniLM) -> None:
        super().__init__()
        self.vision = vision
        self.text = text
        self.vision_head = nn.Linear(VISION_FEATURES, EMBEDDING)
        self.text_head = nn.Linear(TEXT_FEATURES, EMBEDDING)
        self.scale = nn.Parameter(torch.tensor(10.0))

    def project(self, picture: Tensor, caption: Tensor) -> tuple[Tensor, Tensor]:
        """Features [a, 1280] and [b, 384] -> unit embeddings [a, 256] and [b, 256]."""
        return (
            functional.normalize(self.vision_head(picture), dim=-1),
            functional.normalize(self.text_head(caption), dim=-1),
        )

    def forward(
        self, image: Tensor, input_ids: Tensor, attention_mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        picture, caption = self.project(self.vision(image), self.text(input_ids, attention_mask))
        return self.scale * picture @ caption.T, picture, caption
