"""The architectures that `export.py` exports: real ones, with configurations of a few thousand weights.

The transformer families come from `transformers`, whose modelling code is what people export; the others are
written out here and in `networks.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import transformers as hf
from networks import (
    CachedDecoder,
    Detector,
    Diffusion,
    ShiftedWindows,
    conv_bn,
    shuffle_net,
)
from torch import Tensor, nn


@dataclass(frozen=True)
class Example:
    """A module ready to export: its inputs by name, its outputs' names, and its dims that stay symbolic.

    `dynamic` maps an input's name to {axis: symbol}; axes with one symbol have one extent.
    """

    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]
    dynamic: dict[str, dict[int, str]] = field(default_factory=dict)


class Outputs(nn.Module):
    """Calls a `transformers` model by keyword and gives back only the outputs asked for, as a tuple."""

    def __init__(self, model: nn.Module, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.inputs, self.outputs = model, inputs, outputs

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        result = self.model(**dict(zip(self.inputs, values, strict=True)))
        return tuple(result[name] for name in self.outputs)


def wrap(
    model: nn.Module, inputs: dict[str, Tensor], outputs: tuple[str, ...], **dynamic: dict[int, str]
) -> Example:
    """An `Example` of a `transformers` model."""
    return Example(Outputs(model, tuple(inputs), outputs), inputs, outputs, dynamic)


def tokens(batch: int, length: int, vocabulary: int = 96) -> Tensor:
    """Random token ids, int64 [batch, length]."""
    return torch.randint(0, vocabulary, (batch, length))


TEXT = {0: "batch", 1: "sequence"}


def prompt(attention: str) -> dict[str, Tensor]:
    """What a decoder is given: for eager attention a mask too, without which tracing meets `aten::diff`."""
    ids = tokens(2, 12)
    if attention != "eager":
        return {"input_ids": ids}
    mask = torch.ones_like(ids)
    mask[1, :3] = 0
    return {"input_ids": ids, "attention_mask": mask}


def bert(attention: str) -> Example:
    config = hf.BertConfig(
        vocab_size=96, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=64, use_cache=False, return_dict=True, attn_implementation=attention,
    )  # fmt: skip
    mask = torch.ones(2, 12, dtype=torch.int64)
    mask[1, 9:] = 0
    inputs = {"input_ids": tokens(2, 12), "attention_mask": mask, "token_type_ids": tokens(2, 12, 2)}
    outputs = ("last_hidden_state", "pooler_output")
    return wrap(hf.BertModel(config), inputs, outputs, **dict.fromkeys(inputs, TEXT))


def gpt2(attention: str) -> Example:
    config = hf.GPT2Config(
        vocab_size=96,
        n_positions=64,
        n_embd=32,
        n_layer=2,
        n_head=4,
        use_cache=False,
        attn_implementation=attention,
    )
    inputs = prompt(attention)
    return wrap(hf.GPT2LMHeadModel(config), inputs, ("logits",), **dict.fromkeys(inputs, TEXT))


def llama(attention: str) -> Example:
    config = hf.LlamaConfig(
        vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, use_cache=False, attn_implementation=attention,
    )  # fmt: skip
    inputs = prompt(attention)
    return wrap(hf.LlamaForCausalLM(config), inputs, ("logits",), **dict.fromkeys(inputs, TEXT))


def t5_encoder(attention: str) -> Example:
    config = hf.T5Config(
        vocab_size=96, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu",
        use_cache=False, attn_implementation="eager",
    )  # fmt: skip
    inputs = {"input_ids": tokens(1, 12), "attention_mask": torch.ones(1, 12, dtype=torch.int64)}
    return wrap(hf.T5EncoderModel(config), inputs, ("last_hidden_state",))


def whisper_encoder(attention: str) -> Example:
    config = hf.WhisperConfig(
        vocab_size=96, num_mel_bins=16, d_model=32, encoder_layers=2, encoder_attention_heads=4,
        encoder_ffn_dim=64, decoder_layers=1, decoder_attention_heads=4, decoder_ffn_dim=64,
        max_source_positions=24, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
        attn_implementation=attention,
    )  # fmt: skip
    encoder = hf.WhisperModel(config).get_encoder()
    return wrap(
        encoder,
        {"input_features": torch.randn(1, 16, 48)},
        ("last_hidden_state",),
        input_features={0: "batch"},
    )


def vit(attention: str) -> Example:
    config = hf.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, image_size=32,
        patch_size=8, num_labels=10, attn_implementation=attention,
    )  # fmt: skip
    images = {"pixel_values": torch.randn(2, 3, 32, 32)}
    return wrap(hf.ViTForImageClassification(config), images, ("logits",), pixel_values={0: "batch"})


def convnext(attention: str) -> Example:
    config = hf.ConvNextConfig(
        hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1], num_labels=10, drop_path_rate=0.0
    )
    return wrap(
        hf.ConvNextForImageClassification(config), {"pixel_values": torch.randn(1, 3, 64, 64)}, ("logits",)
    )


def resnet(attention: str) -> Example:
    config = hf.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[16, 24, 32, 40],
        depths=[1, 2, 1, 1],
        layer_type="bottleneck",
        num_labels=10,
    )
    images = {"pixel_values": torch.randn(2, 3, 48, 48)}
    return wrap(hf.ResNetForImageClassification(config), images, ("logits",), pixel_values={0: "batch"})


class InvertedResidual(nn.Module):
    """Expand, depthwise, project, with a residual where shapes allow (Sandler et al. 2018, figure 4)."""

    def __init__(self, inputs: int, outputs: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = inputs * expand
        bricks = [conv_bn(inputs, hidden, 1, 1, 1, nn.ReLU6())] if expand != 1 else []
        bricks += [conv_bn(hidden, hidden, 3, stride, hidden, nn.ReLU6())]
        bricks += [conv_bn(hidden, outputs, 1, 1, 1, nn.Identity())]
        self.body = nn.Sequential(*bricks)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


class MobileNetV2(nn.Module):
    """Sandler et al. 2018, table 2; a stage is (expansion, channels, repeats, stride)."""

    def __init__(
        self, stem: int, stages: tuple[tuple[int, int, int, int], ...], head: int, classes: int
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv_bn(3, stem, 3, 2, 1, nn.ReLU6())]
        channels = stem
        for expand, width, repeats, stride in stages:
            for repeat in range(repeats):
                layers.append(InvertedResidual(channels, width, stride if repeat == 0 else 1, expand))
                channels = width
        layers.append(conv_bn(channels, head, 1, 1, 1, nn.ReLU6()))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(head, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean([2, 3]))


def mobilenet_v2(attention: str) -> Example:
    stages = ((1, 8, 1, 1), (6, 12, 2, 2), (6, 16, 2, 2), (6, 24, 1, 1))
    module = MobileNetV2(8, stages, 64, 10)
    return Example(module, {"x": torch.randn(1, 3, 48, 48)}, ("logits",), {"x": {0: "batch"}})


class SqueezeExcite(nn.Module):
    """Channel attention from a global average (Hu et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce, self.expand = (
            nn.Conv2d(channels, channels // 2, 1),
            nn.Conv2d(channels // 2, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        scale = nn.functional.adaptive_avg_pool2d(x, 1)
        return x * nn.functional.hardsigmoid(self.expand(nn.functional.relu(self.reduce(scale))))


def mobilenet_v3(attention: str) -> Example:
    module = nn.Sequential(
        conv_bn(3, 8, 3, 2, 1, nn.Hardswish()), conv_bn(8, 8, 3, 1, 8, nn.ReLU()), SqueezeExcite(8),
        conv_bn(8, 24, 1, 1, 1, nn.Hardswish()), conv_bn(24, 24, 5, 2, 24, nn.SiLU()), SqueezeExcite(24),
        conv_bn(24, 16, 1, 1, 1, nn.Identity()), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 32),
        nn.Hardswish(), nn.Linear(32, 10),
    )  # fmt: skip
    return Example(module, {"x": torch.randn(1, 3, 35, 35)}, ("logits",))


class UNet(nn.Module):
    """Two levels down and up with skip connections (Ronneberger et al. 2015), both kinds of upsampling."""

    def __init__(self) -> None:
        super().__init__()

        def block(inputs: int, outputs: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(inputs, outputs, 3, padding=1), nn.GroupNorm(4, outputs), nn.SiLU()
            )

        self.down1, self.down2, self.middle = block(3, 8), block(8, 16), block(16, 16)
        self.up2, self.up1 = nn.ConvTranspose2d(16, 16, 2, 2), nn.Upsample(scale_factor=2, mode="nearest")
        self.join2, self.join1, self.head = block(32, 8), block(16, 8), nn.Conv2d(8, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.down1(x)
        second = self.down2(nn.functional.max_pool2d(first, 2))
        middle = self.middle(nn.functional.avg_pool2d(second, 2))
        second = self.join2(torch.cat([self.up2(middle), second], 1))
        return torch.sigmoid(self.head(self.join1(torch.cat([self.up1(second), first], 1))))


def unet(attention: str) -> Example:
    return Example(UNet(), {"x": torch.randn(1, 3, 32, 24)}, ("mask",), {"x": {0: "batch"}})


def mlp(attention: str) -> Example:
    module = nn.Sequential(
        nn.Linear(20, 48), nn.GELU(), nn.LayerNorm(48), nn.Linear(48, 48), nn.GELU(approximate="tanh"),
        nn.Linear(48, 7), nn.Softmax(-1),
    )  # fmt: skip
    return Example(module, {"x": torch.randn(3, 20)}, ("probabilities",), {"x": {0: "batch"}})


class LSTMTagger(nn.Module):
    """Embedding, a bidirectional LSTM, a linear head per token."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(96, 16), nn.Linear(24, 5)
        self.lstm = nn.LSTM(16, 12, batch_first=True, bidirectional=True)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.lstm(self.embed(ids))[0])


def lstm(attention: str) -> Example:
    return Example(LSTMTagger(), {"input_ids": tokens(1, 9)}, ("scores",))


def deberta(attention: str) -> Example:
    config = hf.DebertaConfig(
        vocab_size=96, hidden_size=24, num_hidden_layers=1, num_attention_heads=3, intermediate_size=48,
        max_position_embeddings=64, relative_attention=True, pos_att_type=["c2p", "p2c"],
        max_relative_positions=40,
    )  # fmt: skip
    mask = torch.ones(2, 12, dtype=torch.int64)
    mask[1, 9:] = 0
    inputs = {"input_ids": tokens(2, 12), "attention_mask": mask}
    return wrap(hf.DebertaModel(config), inputs, ("last_hidden_state",), **dict.fromkeys(inputs, TEXT))


def t5(attention: str) -> Example:
    config = hf.T5Config(
        vocab_size=64, d_model=24, d_kv=8, d_ff=32, num_layers=1, num_heads=3, feed_forward_proj="relu",
        use_cache=False, attn_implementation="eager",
    )  # fmt: skip
    inputs = {
        "input_ids": tokens(1, 12, 64),
        "attention_mask": torch.ones(1, 12, dtype=torch.int64),
        "decoder_input_ids": tokens(1, 7, 64),
    }
    return wrap(hf.T5ForConditionalGeneration(config), inputs, ("logits",))


def wav2vec2(attention: str) -> Example:
    config = hf.Wav2Vec2Config(
        vocab_size=32, hidden_size=24, num_hidden_layers=1, num_attention_heads=3, intermediate_size=48,
        conv_dim=(12, 12), conv_kernel=(10, 3), conv_stride=(5, 2), num_feat_extract_layers=2,
        num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2, attn_implementation=attention,
    )  # fmt: skip
    sound = {"input_values": torch.randn(1, 400)}
    return wrap(hf.Wav2Vec2ForCTC(config), sound, ("logits",), input_values={0: "batch"})


def llama_step(attention: str) -> Example:
    config = hf.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, attn_implementation=attention,
    )  # fmt: skip
    inputs = {
        "input_ids": tokens(1, 1, 64),
        "attention_mask": torch.ones(1, 8, dtype=torch.int64),
        "keys": torch.randn(1, 2, 7, 8),
        "values": torch.randn(1, 2, 7, 8),
    }
    dynamic = {"attention_mask": {1: "total"}, "keys": {2: "past"}, "values": {2: "past"}}
    outputs = ("logits", "new_keys", "new_values")
    return Example(CachedDecoder(hf.LlamaForCausalLM(config)), inputs, outputs, dynamic)


def shufflenet_v2(attention: str) -> Example:
    module = shuffle_net((8, 16, 24), (2, 2), 10)
    return Example(module, {"x": torch.randn(1, 3, 48, 48)}, ("logits",), {"x": {0: "batch"}})


def yolo(attention: str) -> Example:
    return Example(Detector(8, 3, 32), {"x": torch.randn(1, 3, 32, 32)}, ("boxes",), {"x": {0: "batch"}})


def diffusion(attention: str) -> Example:
    inputs = {
        "x": torch.randn(2, 4, 12, 12),
        "time": torch.tensor([10, 500]),
        "context": torch.randn(2, 5, 12),
    }
    return Example(Diffusion(16, 12, 2), inputs, ("noise",), {name: {0: "batch"} for name in inputs})


def swin(attention: str) -> Example:
    images = {"x": torch.randn(2, 3, 48, 48)}
    return Example(ShiftedWindows(24, 3, 12, 4), images, ("logits",), {"x": {0: "batch"}})


ARCHITECTURES: dict[str, Callable[[str], Example]] = {
    function.__name__: function
    for function in (
        bert,
        convnext,
        deberta,
        diffusion,
        gpt2,
        llama,
        llama_step,
        lstm,
        mlp,
        mobilenet_v2,
        mobilenet_v3,
        resnet,
        shufflenet_v2,
        swin,
        t5,
        t5_encoder,
        unet,
        vit,
        wav2vec2,
        whisper_encoder,
        yolo,
    )
}
