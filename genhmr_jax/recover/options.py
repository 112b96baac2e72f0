"""The options of the recovery of a photo's people: sampling, refinement, camera and limits."""

import dataclasses

import numpy as np

from genhmr_jax.core.choices import CONTEXTS
from genhmr_jax.core.solve import SolveOptions
from genhmr_jax.core.system import PhotoCamera, System
from genhmr_jax.geometry import camera
from genhmr_jax.io.errors import InputError


@dataclasses.dataclass(frozen=True)
class RecoverOptions:
    """Options of the recovery. The model card was measured with the defaults.

    Attributes:
      iterations: T of uncertainty-guided sampling. None means the default of the system.
      temperature: 0 takes the most probable tokens. Several hypotheses need a temperature above 0;
        0 then means 1.
      hypotheses: K samples for each person, the best first (core.solve.SolveOptions).
      refine_steps: steps of the 2D refinement; 0 for none; None for the default of the
        system (regressors: 0).
      focal: focal length in px, or None.
      fov: field of view in degrees over the longer side, if `focal` is None.
      focal35: 35 mm equivalent of the focal length in mm (by the diagonal), if the two before are
        None. `genhmr recover` takes it from EXIF. If all three are None, the focal length is the
        diagonal of the image.
      principal_point: x, y in px; None is the middle of the image.
      seed: of the random draws.
      max_people: limit of people; those with the largest score times box side are kept. None means
        10 detected people, or all given people.
      context: what the system is conditioned on, one of core.choices.CONTEXTS. The refinement uses
        the keypoints in every context.
    """

    iterations: int | None = None
    temperature: float = 0.0
    hypotheses: int = 1
    refine_steps: int | None = None
    focal: float | None = None
    fov: float | None = None
    focal35: float | None = None
    principal_point: tuple[float, float] | None = None
    seed: int = 0
    max_people: int | None = None
    context: str = "all"

    def __post_init__(self) -> None:
        least = {
            "iterations": 1,
            "temperature": 0,
            "hypotheses": 1,
            "refine_steps": 0,
            "max_people": 1,
        }
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and not value >= low:
                raise ValueError(f"{name} is {value}: at least {low} is needed")
        if self.context not in CONTEXTS:
            raise ValueError(f"context is {self.context!r}: choose among {', '.join(CONTEXTS)}")
        if self.focal is not None and not 0 < self.focal < np.inf:
            raise ValueError(f"focal is {self.focal}: a positive number of pixels is needed")
        if self.fov is not None and not 0 < self.fov < 180:
            raise ValueError(f"fov is {self.fov}: degrees between 0 and 180 are needed")
        if self.focal35 is not None and not 0 < self.focal35 < np.inf:
            raise ValueError(f"focal35 is {self.focal35}: a positive number of mm is needed")
        if self.principal_point is not None and not np.isfinite(self.principal_point).all():
            problem = f"principal_point is {self.principal_point}"
            raise ValueError(f"{problem}: two finite numbers of pixels are needed")

    def camera(self, width: int, height: int) -> PhotoCamera:
        """The camera of an image of width x height px."""
        if self.focal is not None:
            focal = float(self.focal)
        elif self.fov is not None:
            focal = camera.focal_from_fov(self.fov, width, height)
        elif self.focal35 is not None:
            focal = camera.focal_from_35mm(self.focal35, width, height)
        else:
            focal = camera.default_focal(width, height)
        if self.principal_point is not None:
            return PhotoCamera(focal, self.principal_point)
        return PhotoCamera(focal, (width / 2.0, height / 2.0))

    @property
    def focal_from(self) -> str:
        """Where the focal length comes from, in the order of precedence: given, EXIF or guess."""
        if self.focal is not None or self.fov is not None:
            return "given"
        return "guess" if self.focal35 is None else "EXIF"

    def solving(self, system: System) -> SolveOptions:
        """The options of core.solve for a system.

        Raises:
          InputError: the system does not support the context.
        """
        if self.context not in system.contexts:
            known = " or ".join(system.contexts)
            problem = "is not supported by this model"
            raise InputError(f"--context {self.context}", problem, f"choose {known}")
        several = self.hypotheses > 1
        refinement = system.refinement
        if self.refine_steps is not None:
            refinement = dataclasses.replace(refinement, steps=self.refine_steps)
        return SolveOptions(
            iterations=self.iterations or system.default_iterations(self.hypotheses),
            temperature=1.0 if several and not self.temperature else self.temperature,
            hypotheses=self.hypotheses,
            refine=refinement,
            context=self.context,
        )


DEFAULTS = RecoverOptions()
"""The options with which the model card was measured."""
