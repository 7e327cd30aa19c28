"""The architecture of a network as one validated tree: `config.json` of a model folder.

Defaults are the official full-size Flow3r (reference section 3); `preset("nano")` is the small
bundled one. The authors' field names (`embed_dim`, `dec_embed_dim`, ...) as used by the golden sets
are understood as well. `evidence` and `encoder.convolutional_patch_embedding` are absent (None) in
the official configuration and add nothing to its state dict.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from flow3r_ros.errors import ModelError
from flow3r_ros.mappings import first_fault, read_mapping

MAX_WIDTH = 4096
"""most channels anywhere: four times the official network, as wide as the largest public ViTs"""
MAX_BLOCKS = 128
"""most blocks of a stack; the official decoder has 36"""
MAX_TOKENS = 128
"""most register tokens of a frame"""
MAX_IMAGE = 2048
"""largest side in pixels of the encoder's position grid"""

Channels = Annotated[int, Field(gt=0, le=MAX_WIDTH)]
Epsilon = Annotated[float, Field(gt=0, le=1e-2)]


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class StackConfig(_Group):
    """One stack of transformer blocks; `width` channels in `heads` heads, LayerScale initialised to
    `layer_scale` where not None."""

    width: Channels
    blocks: int = Field(gt=0, le=MAX_BLOCKS)
    heads: int = Field(gt=0, le=256)
    mlp_ratio: int = Field(4, gt=0, le=16)
    norm_eps: Epsilon = 1e-6
    layer_scale: float | None = Field(None, ge=0, le=1000)
    qk_norm: bool = False
    qk_norm_eps: Epsilon = 1e-5
    rope_base: float | None = Field(
        100.0, gt=0, le=1e9, description="base of the 2-D rotary position embedding; None = no RoPE"
    )

    @model_validator(mode="after")
    def _heads_divide_width(self) -> StackConfig:
        if self.width % self.heads or (
            self.rope_base is not None and (self.width // self.heads) % 4
        ):
            raise ValueError(
                f"width {self.width} does not split into {self.heads} heads of a "
                "multiple of 4 channels"
            )
        return self


class EncoderConfig(StackConfig):
    """The image encoder: a ViT with registers, built for square images of `image_size` pixels (the
    position grid)."""

    patch_size: int = Field(14, ge=4, le=64)
    image_size: int = Field(518, gt=0, le=MAX_IMAGE)
    registers: int = Field(4, ge=0, le=MAX_TOKENS)
    convolutional_patch_embedding: Literal["efficientnet_lite0"] | None = None


class DecoderConfig(StackConfig):
    """The alternating decoder: even blocks attend within a frame, odd blocks over all frames."""

    registers: int = Field(5, ge=0, le=MAX_TOKENS)


class HeadDecoderConfig(StackConfig):
    """A per-frame decoder in front of a head; reads the last two decoder blocks, writes `out`
    channels."""

    out: Channels


class FlowHeadConfig(_Group):
    """The factored flow head (a DPT over four levels).

    `base` is what the raw output is added to: `none` (official), `identity` (zero flow), or
    `reprojection` of the predicted points.
    """

    features: int = Field(256, ge=2, le=1024)
    level_channels: tuple[Channels, Channels, Channels, Channels] = (256, 512, 1024, 1024)
    output_features: Channels = 32
    position_ratio: float = Field(0.1, ge=0, le=10)
    position_base: float = Field(100.0, gt=0, le=1e9)
    norm_eps: Epsilon = 1e-5
    base: Literal["none", "identity", "reprojection"] = "none"


class EvidenceConfig(_Group):
    """The optional evidence embedding (layout of the planes: `flow3r_ros.geometry.evidence`)."""

    channels: int = Field(10, gt=0, le=256)
    width: int = Field(
        48, gt=0, le=1024, description="channels of the convolution stack at half resolution"
    )
    skip_width: int = Field(
        16, gt=0, le=1024, description="channels of the evidence skip into the point head"
    )


class FineHeadConfig(_Group):
    """The optional head without patches (`network.fine_head`); takes the place of the official
    point and confidence heads."""

    widths: tuple[Channels, Channels, Channels] = Field(
        (64, 48, 24), description="channels at 2, 4 and 8 cells along a patch's side"
    )


class Flow3rConfig(_Group):
    """The whole network. Frozen: derive variants with `model_copy(update=...)`."""

    name: str = "flow3r_large"
    initialisation: Literal["official", "scratch"] = "official"
    encoder: EncoderConfig
    decoder: DecoderConfig
    point_decoder: HeadDecoderConfig
    conf_decoder: HeadDecoderConfig
    camera_decoder: HeadDecoderConfig
    flow_head: FlowHeadConfig = FlowHeadConfig()
    evidence: EvidenceConfig | None = None
    fine_head: FineHeadConfig | None = None

    @model_validator(mode="after")
    def _parts_fit(self) -> Flow3rConfig:
        if self.encoder.width != self.decoder.width:
            raise ValueError(
                f"encoder width {self.encoder.width} must equal decoder width "
                f"{self.decoder.width} (no projection between)"
            )
        if self.decoder.blocks < 2 or self.decoder.blocks % 2:
            raise ValueError(
                "the decoder needs an even number of blocks, at least 2 (frame, global, frame, ...)"
            )
        if min(self.point_decoder.blocks, self.camera_decoder.blocks) < 4:
            raise ValueError(
                "point and camera decoders need at least 4 blocks: the flow head reads "
                "their last four"
            )
        if self.point_decoder.width != self.camera_decoder.width:
            raise ValueError(
                "point and camera decoders must be of one width: the flow head concatenates them"
            )
        if self.fine_head is not None and self.encoder.convolutional_patch_embedding is None:
            raise ValueError("the fine head needs a convolutional patch embedding")
        return self


def preset(name: Literal["large", "nano"]) -> Flow3rConfig:
    """`large`: the official 1 001 053 694 parameters. `nano`: the bundled small network with
    evidence and ImageNet features."""
    if name == "large":
        head = HeadDecoderConfig(width=1024, blocks=5, heads=16, out=1024)
        return Flow3rConfig(
            encoder=EncoderConfig(width=1024, blocks=24, heads=16, layer_scale=1.0, rope_base=None),
            decoder=DecoderConfig(width=1024, blocks=36, heads=16, layer_scale=0.01, qk_norm=True),
            point_decoder=head,
            conf_decoder=head,
            camera_decoder=head.model_copy(update={"out": 512}),
        )
    head = HeadDecoderConfig(width=128, blocks=4, heads=2, out=128)
    return Flow3rConfig(
        name="flow3r_nano",
        initialisation="scratch",
        encoder=EncoderConfig(
            width=192,
            blocks=3,
            heads=3,
            layer_scale=1.0,
            rope_base=None,
            image_size=168,
            convolutional_patch_embedding="efficientnet_lite0",
        ),
        decoder=DecoderConfig(width=192, blocks=6, heads=3, layer_scale=0.5, qk_norm=True),
        point_decoder=head,
        conf_decoder=head.model_copy(update={"blocks": 2, "out": 64}),
        camera_decoder=head.model_copy(update={"out": 96}),
        flow_head=FlowHeadConfig(features=48, level_channels=(48, 64, 96, 96), base="reprojection"),
        evidence=EvidenceConfig(),
        fine_head=FineHeadConfig(),
    )


def load_architecture(path: Path) -> Flow3rConfig:
    """Read `config.json` in our layout or in the authors' (golden sets). Raises ModelError naming
    the file and the first bad key."""
    cure = "restore config.json from the model's source"
    tree = read_mapping(path, ModelError, cure)
    try:
        return architecture_from_tree(tree)
    except ValidationError as error:
        raise ModelError(f"{path}: {first_fault(error)}", cure) from error
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{path}: is not an architecture ({type(error).__name__}: {error!s:.80})", cure
        ) from error


def architecture_from_tree(tree: dict[str, Any]) -> Flow3rConfig:
    """Architecture of a parsed `config.json` in either layout; raises pydantic's ValidationError,
    KeyError or TypeError."""
    if "embed_dim" in tree["encoder"]:
        return _from_reference(tree)
    return Flow3rConfig.model_validate(tree)


def _from_reference(tree: dict[str, Any]) -> Flow3rConfig:
    encoder, decoder, flow = tree["encoder"], tree["decoder"], tree["flow_head"]
    conf = tree.get("conf_decoder")
    return Flow3rConfig(
        name=tree.get("name", "reference"),
        encoder=EncoderConfig(
            width=encoder["embed_dim"],
            blocks=encoder["depth"],
            heads=encoder["num_heads"],
            mlp_ratio=encoder["mlp_ratio"],
            norm_eps=encoder.get("norm_eps", 1e-6),
            layer_scale=encoder["init_values"],
            rope_base=None,
            patch_size=encoder["patch_size"],
            image_size=encoder["img_size"],
            registers=encoder["num_register_tokens"],
        ),
        decoder=DecoderConfig(
            width=decoder["dim"],
            blocks=decoder["depth"],
            heads=decoder["num_heads"],
            mlp_ratio=decoder["mlp_ratio"],
            norm_eps=decoder.get("norm_eps", 1e-6),
            layer_scale=decoder["init_values"],
            qk_norm=decoder.get("qk_norm", True),
            qk_norm_eps=decoder.get("qk_norm_eps", 1e-5),
            rope_base=decoder.get("rope_base", 100.0),
            registers=decoder["num_register_tokens"],
        ),
        point_decoder=_reference_head_decoder(tree["point_decoder"], decoder),
        conf_decoder=_reference_head_decoder(
            conf if isinstance(conf, dict) else tree["point_decoder"], decoder
        ),
        camera_decoder=_reference_head_decoder(tree["camera_decoder"], decoder),
        flow_head=FlowHeadConfig(
            features=flow["features"],
            level_channels=tuple(flow["out_channels"]),
            output_features=flow.get("head_features_2", 32),
            position_ratio=flow.get("pos_embed_ratio", 0.1) if flow.get("pos_embed", True) else 0.0,
            position_base=flow.get("pos_embed_omega0", 100.0),
            norm_eps=flow.get("norm_eps", 1e-5),
        ),
    )


def _reference_head_decoder(tree: dict[str, Any], decoder: dict[str, Any]) -> HeadDecoderConfig:
    return HeadDecoderConfig(
        width=tree["dec_embed_dim"],
        blocks=tree["depth"],
        heads=tree["num_heads"],
        mlp_ratio=tree["mlp_ratio"],
        norm_eps=tree.get("norm_eps", 1e-6),
        rope_base=decoder.get("rope_base", 100.0),
        out=tree["out_dim"],
    )
