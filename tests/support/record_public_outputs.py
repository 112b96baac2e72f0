"""Runs the public code of 4D-Humans and TokenHMR on `public_inputs`; no test runs it.

    git clone https://github.com/shubham-goel/4D-Humans
    git clone https://github.com/saidwivedi/TokenHMR
    pip install torch einops scikit-image scipy "opencv-python-headless<5"
    python tests/support/record_public_outputs.py 4D-Humans TokenHMR

It writes `public_outputs.npz`; the one here is of commits 6ec7965 and 198645f, with PyTorch 2.13,
OpenCV 4.12 and scikit-image 0.26. Their modules are imported as they are. What they import and
these runs do not use (training, rendering, SMPL) is replaced by stubs.
"""

import functools
import pathlib
import sys
import tempfile
import types
from typing import Any

import cv2
import numpy as np
import torch
from scipy.spatial.transform import Rotation

sys.path.append(str(pathlib.Path(__file__).parents[1]))

from support import public_inputs as inputs  # noqa: E402

OUT = pathlib.Path(__file__).with_name("public_outputs.npz")


class Config(dict):
    """yacs' CfgNode, as far as it is asked."""

    def __getattr__(self, name: str) -> Any:
        if name not in self:
            raise AttributeError(name)
        return self[name]


class Stub:
    """A class or function that must exist to be imported; as a decorator it changes nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def cuda(self) -> "Stub":
        return self


def package(name: str, folder: pathlib.Path | None = None, **members: Any) -> None:
    """A module of this name whose submodules lie in a folder; its own __init__ is not run."""
    module = types.ModuleType(name)
    module.__path__ = [str(folder)] if folder else []
    vars(module).update(members)
    sys.modules[name] = module


def install_stubs(humans: pathlib.Path, tokenhmr: pathlib.Path) -> None:
    """Their packages as "hmr2", "lib" and "tokenization", and stubs."""
    same = lambda function: function
    layers = {
        "drop_path": lambda x, rate, training: x,
        "to_2tuple": lambda x: tuple(x) if isinstance(x, (tuple, list)) else (x, x),
        "trunc_normal_": torch.nn.init.trunc_normal_,
    }
    package("yacs")
    package("yacs.config", CfgNode=Config)
    package("timm")
    package("timm.models")
    package("timm.models.layers", **layers)
    package("smplx", SMPLHLayer=Stub, SMPLXLayer=Stub)
    rank_zero = types.SimpleNamespace(rank_zero_only=same)
    package(
        "pytorch_lightning",
        LightningModule=torch.nn.Module,
        utilities=types.SimpleNamespace(rank_zero=rank_zero),
    )
    for name, root in (("hmr2", humans / "hmr2"), ("lib", tokenhmr / "tokenhmr" / "lib")):
        package(name, root)
        package(f"{name}.utils", root / "utils", SkeletonRenderer=Stub, MeshRenderer=Stub)
        package(f"{name}.utils.pylogger", get_pylogger=Stub)
        package(f"{name}.utils.misc", load_pretrained=Stub)
        package(f"{name}.models", root / "models", SMPL=Stub)
        package(f"{name}.models.components", root / "models" / "components")
        package(f"{name}.models.backbones", root / "models" / "backbones", create_backbone=Stub)
        package(f"{name}.models.heads", root / "models" / "heads", build_smpl_head=Stub)
        package(f"{name}.models.discriminator", Discriminator=Stub)
        package(f"{name}.models.smpl_wrapper", SMPL=Stub)
        package(f"{name}.datasets", root / "datasets")
    package("tokenization", tokenhmr / "tokenization")
    package("tokenization.models", tokenhmr / "tokenization" / "models")
    torch.Tensor.cuda = lambda self, *_, **__: self
    torch.load = functools.partial(torch.load, weights_only=False)


def loaded(module: torch.nn.Module, tensors: inputs.Tensors) -> torch.nn.Module:
    """The module with these tensors: all of its own, and no others."""
    module.load_state_dict(
        {name: torch.from_numpy(array) for name, array in tensors.items()}, strict=True
    )
    module.eval()
    return module


def config_of(sizes: dict[str, int], mean: str, tokenizer: str) -> Config:
    """Their configuration of a head; tokenhmr_release.yaml, hmr_vit_transformer.yaml."""
    decoder = {
        "depth": 6,
        "heads": 8,
        "mlp_dim": 1024,
        "dim_head": 64,
        "dropout": 0.0,
        "emb_dropout": 0.0,
        "norm": "layer",
    }
    tokens = Config(
        TOKEN_CODE_DIM=256, TOKEN_NUM=160, TOKEN_CLASS_NUM=2048, TOKENIZER_TYPE="Vanilla"
    )
    head = Config(TRANSFORMER_DECODER=decoder | sizes, TOKENIZER=tokens)
    smpl = Config(NUM_BODY_JOINTS=23, MEAN_PARAMS=mean)
    return Config(MODEL=Config(SMPL_HEAD=head, TOKENIZER_CHECKPOINT_PATH=tokenizer), SMPL=smpl)


def networks(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """What both networks give, small heads alone and whole networks, and TokenHMR's tokenizer."""
    from hmr2.models.backbones.vit import ViT as Hmr2Vit
    from hmr2.models.heads.smpl_head import SMPLTransformerDecoderHead
    from lib.models.backbones.vit import ViT as TokenHmrVit
    from lib.models.heads.token_head import SMPLTokenDecoderHead
    from tokenization.models.vanilla_pose_vqvae import DecodeTokens, VanillaTokenizer

    arch = Config(
        CODE_DIM=256,
        NB_CODE=2048,
        ROT_TYPE="rot6d",
        QUANTIZER="ema_reset",
        DOWN_T=1,
        WIDTH=512,
        DEPTH=2,
    )
    arch |= {"DILATION_RATE": 3, "TOKEN_SIZE_MUL": 4, "TOKEN_SIZE_DIV": 4, "NB_JOINTS": 21}
    arch, net = Config(arch), inputs.tokenizer()
    mean, file = str(folder / "mean.npz"), str(folder / "tokenizer.pth")
    np.savez(
        mean, pose=np.zeros(144), shape=np.zeros(10), cam=np.zeros(3)
    )  # the state holds others
    torch.save(
        {
            "net": {name: torch.from_numpy(a) for name, a in net.items()},
            "hparams": types.SimpleNamespace(ARCH=arch),
        },
        file,
    )
    found = {}

    loaded(VanillaTokenizer(arch, mesh_inference=False), net)  # checks the names of all tensors
    decoder = DecodeTokens(file)
    found["decoder"] = decoder.decoder(torch.from_numpy(inputs.codes()).permute(0, 2, 1))[
        "pred_pose_body_6d"
    ]

    small = {"depth": 2, "heads": 4, "dim_head": 8, "mlp_dim": 24, "context_dim": 40}
    made = {
        "hmr2_small": SMPLTransformerDecoderHead(
            config_of(small | {"dim": inputs.HMR2_WIDTH}, mean, file)
        ),
        "tokenhmr_small": SMPLTokenDecoderHead(config_of(small, mean, file)),
        "hmr2": SMPLTransformerDecoderHead(config_of({"context_dim": 384}, mean, file)),
        "tokenhmr": SMPLTokenDecoderHead(config_of({"context_dim": 384}, mean, file)),
    }
    of_kind = {"hmr2": inputs.hmr2_head, "tokenhmr": inputs.tokenhmr_head}
    sizes = {
        "img_size": (256, 192),
        "patch_size": 16,
        "embed_dim": 384,
        "depth": 12,
        "num_heads": 12,
        "qkv_bias": True,
    }
    mean_rgb, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    images = ((torch.from_numpy(inputs.crops()) - mean_rgb) / std).permute(0, 3, 1, 2)
    features = {
        "hmr2": loaded(Hmr2Vit(**sizes), inputs.backbone())(
            images[:, :, :, 32:-32]
        ),  # as hmr2.py, L105, does
        "tokenhmr": loaded(TokenHmrVit(**sizes), inputs.backbone())(images),
    }
    features |= dict.fromkeys(
        ("hmr2_small", "tokenhmr_small"),
        torch.from_numpy(inputs.context()).permute(0, 2, 1)[:, :, None],
    )
    for name, head in made.items():
        loaded(head, of_kind[name.removesuffix("_small")](name.endswith("_small")))
        smpl, camera, _ = head(features[name])
        found[f"{name}_rotmats"] = torch.cat([smpl["global_orient"], smpl["body_pose"]], 1)
        found |= {f"{name}_betas": smpl["betas"], f"{name}_camera": camera}
    return {name: value.numpy() for name, value in found.items()}


def losses() -> dict[str, np.ndarray]:
    """The terms of both losses, sums over the batch: joints3d, joints2d, orient, pose, betas."""
    import hmr2.models.hmr2 as humans
    import hmr2.models.losses as plain
    import lib.models.losses as loose
    import lib.models.tokenhmr as tokens
    from hmr2.utils.geometry import perspective_projection

    given = {name: torch.from_numpy(value) for name, value in inputs.labels().items()}
    # Our thresholds are distances, theirs squared ones. Their keypoints 24 to 44 are not used.
    tokens.kp2D_err_valid_thresh = torch.cat([given["points2d_thresholds"] ** 2, torch.ones(21)])
    tokens.angle_valid_thresh = {
        "global_orient": given["angle_thresholds"][:1],
        "body_pose": given["angle_thresholds"][1:],
    }

    def turned(angles: torch.Tensor) -> np.ndarray:
        return Rotation.from_rotvec(angles.reshape(-1, 3)).as_matrix().reshape(4, 24, 3, 3)

    rotmats = torch.from_numpy(
        (turned(given["label_angles"]) @ turned(given["turns"])).astype(np.float32)
    )
    weak, focal = given["weak"], torch.full((4, 2), 5000.0)
    translation = torch.stack(
        [weak[:, 1], weak[:, 2], 2 * focal[:, 0] / (256 * weak[:, 0] + 1e-9)], -1
    )  # hmr2.py, L120
    seen = perspective_projection(
        given["points"], translation=translation, focal_length=focal / 256
    )

    def batch(with_joints: bool) -> tuple[dict, dict]:
        """Their batch and output: joints in 3D, the root as the pelvis (39), or all other
        labels."""
        points2d, joints3d, labels2d, labels3d = (
            torch.zeros(4, 44, 2),
            torch.zeros(4, 44, 3),
            torch.zeros(4, 44, 3),
            torch.zeros(4, 44, 4),
        )
        if with_joints:
            slots = [39, *range(23)]
            joints3d[:, slots], labels3d[:, slots, :3], labels3d[:, slots, 3] = (
                given["joints"],
                given["label_joints"],
                1.0,
            )
        else:
            points2d[:, :23], labels2d[:, :23, :2], labels2d[:, :23, 2] = (
                seen,
                given["label_points2d"],
                given["confidence"],
            )
        smpl = {
            "global_orient": rotmats[:, :1],
            "body_pose": rotmats[:, 1:],
            "betas": given["betas"],
        }
        angles = given["label_angles"]
        wanted = {
            "global_orient": angles[:, 0],
            "body_pose": angles[:, 1:].reshape(4, 69),
            "betas": given["label_betas"],
        }
        known = {
            "global_orient": given["has_rotation"],
            "body_pose": given["has_rotation"],
            "betas": given["has_betas"],
        }
        made = {
            "keypoints_2d": labels2d,
            "keypoints_3d": labels3d,
            "smpl_params": wanted,
            "has_smpl_params": {name: value.clone() for name, value in known.items()},
            "smpl_params_is_axis_angle": {name: torch.tensor(name != "betas") for name in wanted},
            "dataset": ["BEDLAM" if exact else "COCO" for exact in given["exact"]],
        }
        return made, {
            "pred_smpl_params": smpl,
            "pred_keypoints_2d": points2d,
            "pred_keypoints_3d": joints3d,
        }

    names = {
        "orient": "loss_global_orient",
        "pose": "loss_body_pose",
        "betas": "loss_betas",
        "joints2d": "loss_keypoints_2d",
    }
    weights = Config(
        dict.fromkeys(("KEYPOINTS_3D", "KEYPOINTS_2D", "GLOBAL_ORIENT", "BODY_POSE", "BETAS"), 1.0)
    )
    found = {}
    for name, model, (points, joints, parameters), switches in (
        (
            "hmr2",
            humans.HMR2,
            (plain.Keypoint2DLoss, plain.Keypoint3DLoss, plain.ParameterLoss),
            {},
        ),
        (
            "tokenhmr",
            tokens.TokenHMR,
            (loose.Keypoint2DLossPCKT, loose.Keypoint3DLossPCKT, loose.ParameterLossPCKT),
            {"LOOSE_SUP": True, "LOOSE_WEIGHT": 0.05},
        ),
    ):
        parts = {
            "keypoint_2d_loss": points(),
            "keypoint_3d_loss": joints(),
            "smpl_parameter_loss": parameters(),
        }
        task = types.SimpleNamespace(
            cfg=Config(MODEL=Config(switches), LOSS_WEIGHTS=weights), **parts
        )
        terms = []
        for with_joints in (True, False):
            made, output = batch(with_joints)
            model.compute_loss(task, made, output, train=True)
            terms.append(output["losses"])
        sums = [
            terms[0]["loss_keypoints_3d"],
            *(terms[1][names[term]] for term in ("joints2d", "orient", "pose", "betas")),
        ]
        found[f"{name}_losses"] = np.array(sums, np.float64)
    return found


def crops() -> dict[str, np.ndarray]:
    """Crops of `picture`, 0..255, of their demo and of their evaluation; the boxes' squares."""
    from hmr2.datasets.utils import get_example
    from hmr2.datasets.vitdet_dataset import ViTDetDataset

    rgb = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    model = Config(IMAGE_SIZE=256, IMAGE_MEAN=rgb[0], IMAGE_STD=rgb[1], BBOX_SHAPE=[192, 256])
    bgr, boxes = (
        np.ascontiguousarray(inputs.picture()[:, :, ::-1]),
        np.array(list(inputs.BOXES.values()), np.float32),
    )
    data = ViTDetDataset(Config(MODEL=model), bgr, boxes)
    mean, std = (255 * np.array(values)[:, None, None] for values in rgb)
    found = {"demo": [], "evaluation": [], "squares": []}
    for i in range(len(boxes)):
        item = data[i]
        (x, y), side = item["box_center"], item["box_size"]
        smpl = {
            "global_orient": np.zeros(3, np.float32),
            "body_pose": np.zeros(69, np.float32),
            "betas": np.zeros(10, np.float32),
        }
        labels = np.zeros((44, 3)), np.zeros((44, 4)), smpl, dict.fromkeys(smpl, np.zeros(1))
        evaluated = get_example(
            bgr, x, y, side, side, *labels, list(range(44)), 256, 256, None, None, False, None
        )[0]
        found["squares"].append([x, y, side])
        for name, pixels in (("demo", item["img"] * std + mean), ("evaluation", evaluated)):
            found[name].append(np.asarray(pixels, np.float32).transpose(1, 2, 0)[inputs.SEEN])
    return {name: np.array(values, np.float32) for name, values in found.items()}


def main() -> None:
    """Records."""
    if int(cv2.__version__.split(".")[0]) != 4:
        raise SystemExit(
            f"OpenCV is {cv2.__version__}; the published models were trained and evaluated with 4"
        )
    install_stubs(*map(pathlib.Path, sys.argv[1:3]))
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        found = networks(pathlib.Path(folder)) | losses() | crops()
    np.savez_compressed(OUT, **found)
    print(f"{OUT}: {OUT.stat().st_size} bytes")
    for name, value in found.items():
        print(name, value.shape, value.dtype)


if __name__ == "__main__":
    main()
