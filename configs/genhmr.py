"""Stage 2, the image-conditioned masked transformer.

    python -m genhmr_jax.main --config=configs/genhmr.py --workdir=runs/genhmr \\
        --config.data.poses=cmu_poses.npz --config.tokenizer=runs/tokenizer/model

Keypoints only, unless --config.image_batch_size=N asks for images: --config.data.images=DIR names rendered ones with their features
(genhmr_jax/data/features.py), --config.data.people=DIR photos of people, built by `genhmr data build` and mixed by data.mixture.

Args:
* `default` (an hour on 2 CPU cores), then `detected`, which goes on with the detector's keypoints, in 2D and 3D, on rendered people (an
  hour more), then `lifted`, the same with more of them (half an hour): the shipped model. `look` starts from it and sees no keypoints, but
  the maps of the detector's own looks (a quarter of an hour); `seen` goes on from both, with either and both (an hour): it can do with the
  image alone. `images` (BlazePose's maps of plain crops), `gpu` (wider, longer), `tiny` (seconds);
* `vit_h`, `vit_l`, `vit_b`, `vit_s`: paper scale (docs/pretrained.md), image only, from ViTPose's backbone in models/vitpose_h, ..; on
  HMR2.0's datasets, which BEDLAM is not among; `vit_h_bedlam`, .. on TokenHMR's, 18 % BEDLAM. `paper` is `vit_h`;
* `finetune`: goes on with the shipped model on own photos; `finetune_vit_h`, ..: goes on with a model of the recipes above on a single
  GPU, its encoder frozen but for low-rank arrays (docs/finetuning.md).
"""

import json
import pathlib

import ml_collections

import genhmr_jax
from genhmr_jax.train import defaults

SHIPPED = pathlib.Path(genhmr_jax.__file__).parent / "assets" / "default"
VIT_WIDTH = {"h": 1280, "l": 1024, "b": 768, "s": 384}
# Arguments, with the size of the ViT, and whether BEDLAM is in the mixture.
PAPER_SCALE = {"paper": ("h", False)} | {f"vit_{size}{end}": (size, bool(end)) for size in VIT_WIDTH for end in ("", "_bedlam")}
FINETUNE = {f"finetune_vit_{size}": size for size in VIT_WIDTH}


def get_config(arg: str = "default") -> ml_collections.ConfigDict:
    c = defaults.runtime()
    c.stage = "genhmr"
    c.seed = 0
    c.batch_size = 128  # simulated views (keypoints only) a step
    c.image_batch_size = 0  # rendered images a step, beside them
    c.steps = 4800
    c.log_every, c.evaluate_every, c.checkpoint_every, c.evaluate_poses = 50, 500, 250, 2048
    c.tokenizer = "runs/tokenizer/model"
    c.init = ""  # stage-2 model folders to start from, with commas between; arrays that do not fit are left fresh, and named

    c.model = ml_collections.ConfigDict()
    c.model.transformer = ml_collections.ConfigDict({"width": 192, "layers": 4, "heads": 6, "mlp_ratio": 3, "points": 4})
    c.model.transformer.activation, c.model.transformer.geometric, c.model.transformer.head_rank = "relu", True, 48
    c.model.num_keypoints = 23
    c.model.keypoints3d = False  # the context also takes the detector's guess of the keypoints in 3D
    c.model.context = "mlp"
    c.model.context_tokens, c.model.context_width, c.model.context_depth = 6, 768, 3
    c.model.encoder = "blazepose_full"
    c.model.encoder_channels = ()
    c.model.pyramid = "project"
    c.model.pyramid_scales = (4.0, 2.0, 1.0)
    c.model.box_token = False  # a context token of where the crop looks alone; models with keypoints have it mixed with them anyway

    c.data = ml_collections.ConfigDict()
    c.data.poses = "cmu_poses.npz"
    c.data.images = ""
    c.data.people = ""  # built datasets of photos (genhmr data build --data-dir DIR), instead of data.images; none if all are rendered
    c.data.mixture = "tokenhmr"  # hmr2, tokenhmr, tokenhmr_bedlam, or NAME=WEIGHT,NAME=WEIGHT; "rendered" makes people of data.poses
    c.data.backgrounds = ""  # of rendered people: a folder of tools/fetch_backgrounds.py; procedural rooms without
    c.data.render_on_device = False  # rasterise them on the accelerator, not on the cores
    c.data.people_val = ""  # DATASET:SPLIT of data.people to measure on, such as threedpw:validation
    c.data.augment = ml_collections.ConfigDict()  # overrides of data/augment.py:AugmentSpec
    c.data.body = "neutral"
    c.data.view = ml_collections.ConfigDict()  # overrides of data/views.py:ViewSpec
    c.data.turn = ml_collections.ConfigDict()  # overrides of data/turn.py:TurnSpec, for stored rows without maps

    c.masking = ml_collections.ConfigDict()
    c.masking.schedule = "cosine"  # law of the mask ratio: cosine, linear, square, cubic, sqrt
    c.masking.min_ratio = 0.0  # MaskGIT: 0.5
    c.masking.all_masked = 0.3  # share of samples with every token masked: the first step of sampling, where most is decided
    c.masking.corrupt = 0.1  # share of visible tokens replaced by a random one
    c.masking.unroll = 0.0  # share of samples that go on from the network's own confident guesses instead of from true tokens
    c.masking.drop_keypoints = 0.0  # of the image samples: learn from the image alone
    c.masking.drop_image = 0.1

    c.loss = ml_collections.ConfigDict()
    c.loss.token, c.loss.label_smoothing = 1.0, 0.0
    c.loss.differentiable_sampling = "expected"  # or straight_through, none
    c.loss.rotation, c.loss.joints3d, c.loss.joints2d, c.loss.betas, c.loss.camera = 2.0, 10.0, 2.0, 0.05, 2.0

    c.optim = defaults.optimizer()
    c.optim.learning_rate, c.optim.warmup, c.optim.final, c.optim.b2 = 8e-4, 200, 0.02, 0.98
    c.optim.weight_decay, c.optim.clip_norm, c.optim.ema_decay = 0.01, 1.0, 0.999

    if arg == "gpu":
        c.model.transformer.width, c.model.transformer.layers, c.model.transformer.heads = 512, 6, 8
        c.batch_size, c.steps, c.optim.learning_rate = 1024, 100_000, 5e-4
    elif arg == "images":
        c.model.encoder_channels, c.image_batch_size, c.batch_size = (80, 136, 288), 64, 64
        c.data.images, c.masking.drop_keypoints = "runs/features", 0.3
    elif arg == "look":
        c.model.num_keypoints, c.model.encoder, c.model.encoder_channels = 0, "look", (288, 288)
        c.data.images, c.init = "runs/looks", "runs/lifted/model"
        c.batch_size, c.image_batch_size, c.steps, c.evaluate_every = 0, 128, 800, 800
        c.masking.all_masked, c.masking.drop_image, c.optim.weight_decay = 0.5, 0.0, 0.05
    elif arg == "seen":
        c.model.keypoints3d, c.model.context_depth = True, 2
        c.model.encoder, c.model.encoder_channels = "look", (288, 288)
        c.data.images, c.init = "runs/looks", "runs/lifted/model,runs/look/model"
        c.batch_size, c.image_batch_size, c.steps, c.evaluate_every = 32, 112, 3200, 1600
        c.optim.learning_rate, c.optim.weight_decay = 6e-4, 0.05
        c.masking.all_masked, c.masking.drop_keypoints = 0.5, 0.5
    elif arg in ("detected", "lifted"):
        c.model.keypoints3d, c.image_batch_size, c.batch_size = True, 64, 64
        c.data.images, c.init = "runs/features", "runs/genhmr/model"
        c.steps, c.evaluate_every, c.evaluate_poses, c.masking.unroll = 3200, 800, 1024, 0.4
        c.optim.learning_rate, c.optim.warmup = 4e-4, 100
        if arg == "lifted":
            # One iteration gives the best single answer, and it sees no token: so do half of the samples.
            c.init, c.masking.all_masked, c.image_batch_size, c.batch_size = "runs/detected/model", 0.5, 96, 32
            c.steps, c.evaluate_every = 2600, 1300
    elif arg in PAPER_SCALE:
        paper_scale(c, *PAPER_SCALE[arg])
    elif arg == "finetune":
        finetune_shipped(c)
    elif arg in FINETUNE:
        finetune_vit(c, FINETUNE[arg])
    elif arg == "tiny":
        c.data.poses = "made-up"  # needs no data
        c.tokenizer = "runs/tokenizer_tiny/model"
        c.model.transformer.width, c.model.transformer.layers, c.model.transformer.heads = 24, 1, 2
        c.model.context_tokens, c.model.context_width, c.model.context_depth = 2, 32, 1
        c.batch_size, c.steps, c.log_every, c.evaluate_every, c.checkpoint_every, c.evaluate_poses = 16, 20, 5, 10, 10, 32
    elif arg != "default":
        names = ("default", "detected", "lifted", "images", "look", "seen", "gpu", *PAPER_SCALE, "finetune", *FINETUNE, "tiny")
        raise ValueError(f"configs/genhmr.py:{arg}: choose {', '.join(names)}")
    return c


def paper_scale(c: ml_collections.ConfigDict, size: str, bedlam: bool) -> None:
    """The paper's setting: image only, a ViT that is trained with the decoder, 96 tokens.

    410 M crops, as many as HMR2.0 was trained on (1 M steps of 8 x 48), in steps of 4096; the encoder learns at HMR2.0's rate of 1e-5.
    """
    t = c.model.transformer
    t.width, t.layers, t.heads = 1024, 6, 8
    t.mlp_ratio, t.activation, t.geometric, t.head_rank = 4, "gelu", False, 0
    c.model.num_keypoints, c.model.pyramid = 0, "simple"
    c.model.encoder, c.model.encoder_channels = f"vit_{size}", (VIT_WIDTH[size],)
    c.init, c.tokenizer = f"models/vitpose_{size}", "runs/tokenizer_paper/model"
    c.data.people, c.data.mixture, c.data.people_val = "data", "tokenhmr" if bedlam else "hmr2", "threedpw:validation"
    c.batch_size, c.image_batch_size, c.steps, c.optim.learning_rate, c.optim.warmup = 0, 4096, 100_000, 1e-4, 2000
    c.log_every, c.evaluate_every, c.checkpoint_every = 100, 5000, 1000
    c.masking.all_masked, c.masking.corrupt, c.masking.drop_image = 0.0, 0.0, 0.0
    c.precision, c.remat, c.optim.groups, c.optim.layer_decay, c.drop_path = "bfloat16", "blocks", ((r"encoder/.*", 0.1),), 0.9, 0.1
    c.mesh.data, c.mesh.fsdp = 1, -1


def finetune_vit(c: ml_collections.ConfigDict, size: str) -> None:
    """A model of `paper_scale` goes on with own photos on one device: 64 crops a step, 16 at a time, rank 8 in a frozen encoder."""
    paper_scale(c, size, bedlam=False)
    c.init, c.data.mixture, c.data.people_val = f"runs/vit_{size}/model", "own_photos", "own_photos:val"
    c.image_batch_size, c.accumulate, c.steps, c.optim.warmup = 64, 4, 5000, 200
    c.log_every, c.evaluate_every, c.checkpoint_every, c.evaluate_poses = 50, 500, 500, 512
    c.lora.rank, c.optim.frozen, c.optim.groups, c.optim.layer_decay, c.drop_path = 8, (r"encoder/.*",), (), 1.0, 0.0
    c.mesh.data, c.mesh.fsdp = -1, 1


def finetune_shipped(c: ml_collections.ConfigDict) -> None:
    """The shipped model goes on with own photos: as it was exported, its tokenizer included; so few and small steps that it stays near."""
    spec = json.loads((SHIPPED / "config.json").read_text())["spec"]
    for name, value in spec.items():
        if name == "transformer":
            c.model.transformer.update({k: v for k, v in value.items() if k != "levels"})
        elif name != "tokenizer":
            c.model[name] = tuple(value) if isinstance(value, list) else value
    c.init = c.tokenizer = str(SHIPPED)
    c.data.people, c.data.mixture, c.data.people_val = "data", "own_photos", "own_photos:val"
    c.batch_size, c.image_batch_size, c.steps, c.optim.learning_rate, c.optim.warmup, c.optim.ema_decay = 0, 64, 1000, 1e-4, 50, 0.99
    c.log_every, c.evaluate_every, c.checkpoint_every, c.evaluate_poses = 20, 250, 250, 512
    c.masking.drop_keypoints, c.masking.unroll = 0.3 if spec["encoder_channels"] else 0.0, 0.4  # it ended its training so (`detected`)
