"""Written by `python -m slalom.named`; the test suite checks that it is up to date."""

from collections.abc import Mapping
from typing import Any, Literal

from slalom import accumulate as accumulate
from slalom import algebra as algebra
from slalom import compress as compress
from slalom import finite_sums as finite_sums
from slalom import landscape as landscape
from slalom import losses as losses
from slalom import memory as memory
from slalom import observe as observe
from slalom import parts as parts
from slalom import schedules as schedules
from slalom import sharpness as sharpness
from slalom.attention import largest_logits as largest_logits
from slalom.attention import qk_clip as qk_clip
from slalom.ball import start_on_ball as start_on_ball
from slalom.batchnorm import update_bn as update_bn
from slalom.checkpoint import Checkpoint as Checkpoint
from slalom.checkpoint import load_checkpoint as load_checkpoint
from slalom.checkpoint import save_checkpoint as save_checkpoint
from slalom.named import create as create
from slalom.observe import sparsity as sparsity
from slalom.optimizer import Optimizer as Optimizer
from slalom.range_test import find_lr as find_lr
from slalom.recipes import ByRole as ByRole
from slalom.recipes import Recipe as Recipe
from slalom.recipes import list_optimizers as list_optimizers
from slalom.recipes import recipe as recipe
from slalom.replay import replay as replay
from slalom.roles import assign_roles as assign_roles
from slalom.roles import param_groups as param_groups
from slalom.engine import Blocks, Executor, Rows
from slalom.named import Named
from slalom.optimizer.nonfinite import OnNonfinite
from slalom.optimizer import Parameters
from slalom.roles import Role

__version__: str

class ADOPT(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.9999),
        eps: float = 1e-06,
        weight_decay: float = 0.0,
        clip: bool = True,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class ALIG(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.1,
        momentum: float = 0.9,
        eps: float = 1e-05,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class AMAdamW(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.89, 0.999),
        lam: float = 0.1,
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class AMMSGD(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.1,
        beta_max: float = 0.9,
        lam: float = 0.1,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class AMSGrad(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        variant: str = 'torch',
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class APOLLO(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-06,
        weight_decay: float = 0.0,
        rank: int = 256,
        frequency: int = 200,
        scale: float = 1.0,
        growth: float = 1.01,
        seed: int = 0,
        adam_lr: float = 0.001,
        adam_betas: tuple[float, float] = (0.9, 0.999),
        adam_eps: float = 1e-08,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
        roles: Mapping[str, Role] | None = None,
        by_role: Mapping[Role, Mapping[str, Any]] | None = None,
    ) -> None: ...

class APOLLOMini(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-06,
        weight_decay: float = 0.0,
        rank: int = 1,
        frequency: int = 200,
        scale: float = 128.0,
        growth: float = 1.01,
        seed: int = 0,
        adam_lr: float = 0.001,
        adam_betas: tuple[float, float] = (0.9, 0.999),
        adam_eps: float = 1e-08,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
        roles: Mapping[str, Role] | None = None,
        by_role: Mapping[Role, Mapping[str, Any]] | None = None,
    ) -> None: ...

class AdEMAMix(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        betas: tuple[float, float, float] = (0.9, 0.999, 0.9999),
        alpha: float = 5.0,
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        warmup: int = 0,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class AdaBelief(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-16,
        weight_decay: float = 0.0,
        rectify: bool = False,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class AdaGL(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        alpha: float = 0.5,
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        convention: Literal['difference', 'memory'] = 'difference',
        terms: int = 10,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class AdaLo(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 1.0,
        betas: tuple[float, float] = (0.9, 0.999),
        kappa: float = 3.0,
        weight_decay: float = 0.01,
        form: Literal['paper', 'adversarial', 'compliant'] = 'adversarial',
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class AdaMomentum(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class AdaMuon(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        momentum: float = 0.95,
        beta2: float = 0.999,
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        steps: int = 5,
        nesterov: bool = True,
        signs: bool = False,
        adam_lr: float = 0.001,
        adam_betas: tuple[float, float] = (0.9, 0.95),
        adam_eps: float = 1e-08,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
        roles: Mapping[str, Role] | None = None,
        by_role: Mapping[Role, Mapping[str, Any]] | None = None,
    ) -> None: ...

class AdaNorm(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        r: float = 0.95,
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class AdaPNM(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        amplify: float = 1.0,
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        amsgrad: bool = True,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class Adafactor(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.01,
        beta2_decay: float = -0.8,
        eps: tuple[float, float] = (1e-30, 0.001),
        d: float = 1.0,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class AdafactorHF(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.01,
        eps: tuple[float, float] = (1e-30, 0.001),
        clip_threshold: float = 1.0,
        decay_rate: float = -0.8,
        beta1: float = 0.0,
        weight_decay: float = 0.0,
        scale_parameter: bool = True,
        relative_step: bool = True,
        warmup_init: bool = False,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class AdafactorTorch(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.01,
        beta2_decay: float = -0.8,
        eps: tuple[float, float] = (1.1920929e-07, 0.001),
        d: float = 1.0,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class Adagrad(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.01,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class Adam(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class AdamAtan2(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.0001,
        betas: tuple[float, float] = (0.9, 0.99),
        a: float = 1.27,
        b: float = 1.0,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class AdamCPR(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        kappa: float = 1.0,
        kappa_init: str = 'warm_start',
        steps: int = 1000,
        mu: float = 1.0,
        measure: Literal['square', 'half', 'l1', 'huber', 'deviation'] = 'square',
        by_rate: bool = False,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class AdamG(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 1.0,
        betas: tuple[float, float, float] = (0.95, 0.999, 0.95),
        p: float = 0.2,
        q: float = 0.24,
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class AdamMini(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        heads: int = 0,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
        roles: Mapping[str, Role] | None = None,
        by_role: Mapping[Role, Mapping[str, Any]] | None = None,
    ) -> None: ...

class AdamP(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        delta: float = 0.1,
        wd_ratio: float = 0.1,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class AdamS(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.0001,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class AdamW(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class AdamW2(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        tau: float = 0.01,
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        iterations: int = 1,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class AdamWCWD(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class AdamWEMA(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        ema: float = 0.999,
        every: int = 1,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class Adamax(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.002,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class Adan(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        betas: tuple[float, float, float] = (0.98, 0.92, 0.99),
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        no_prox: bool = False,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class AggMo(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        betas: tuple[float, float, float] = (0.0, 0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class AlgoPerfCASPR(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.0017486387539278373,
        betas: tuple[float, float] = (0.93266073836, 0.9955159689799007),
        eps: float = 1e-08,
        weight_decay: float = 0.08121616522670176,
        frequency: int = 20,
        start: int = 101,
        block: int = 1024,
        ridge: float = 1e-06,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class AlgoPerfCyclic(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.0017486387539278373,
        betas: tuple[float, float] = (0.93266073836, 0.9955159689799007),
        eps: float = 1e-08,
        weight_decay: float = 0.08121616522670176,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class AlgoPerfGeneralizedAdam(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.0017486387539278373,
        betas: tuple[float, float] = (0.93266073836, 0.9955159689799007),
        eps: float = 1e-08,
        weight_decay: float = 0.08121616522670176,
        power: float = 2.0,
        nesterov: bool = True,
        scale: bool = True,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class AlgoPerfLAWAEMA(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.0017486387539278373,
        betas: tuple[float, float] = (0.93266073836, 0.9955159689799007),
        eps: float = 1e-08,
        weight_decay: float = 0.08121616522670176,
        ema: float = 0.2,
        steps: int = 10000,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class AlgoPerfLAWAQueue(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.0017486387539278373,
        betas: tuple[float, float] = (0.93266073836, 0.9955159689799007),
        eps: float = 1e-08,
        weight_decay: float = 0.08121616522670176,
        steps: int = 10000,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class AlgoPerfNadamP(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.0017486387539278373,
        betas: tuple[float, float] = (0.93266073836, 0.9955159689799007),
        eps: float = 1e-08,
        weight_decay: float = 0.08121616522670176,
        power: float = 2.0,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class AlgoPerfShampoo(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.0017486387539278373,
        betas: tuple[float, float] = (0.93266073836, 0.9955159689799007),
        eps: float = 1e-08,
        weight_decay: float = 0.08121616522670176,
        frequency: int = 100,
        block: int = 1024,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class Amos(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.01,
        beta: float = 0.999,
        eps: float = 1e-18,
        per: Literal['row', 'tensor'] = 'row',
        eta: float = 0.0,
        gain: float = 1.4142135623730951,
        momentum: float = 0.0,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class CAME(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.0002,
        betas: tuple[float, float, float] = (0.9, 0.999, 0.9999),
        eps: tuple[float, float] = (1e-30, 1e-16),
        clip_threshold: float = 1.0,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class CASPR(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.995),
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        frequency: int = 10,
        block: int = 0,
        adam_eps: float = 1e-08,
        factors: Literal['same', 'float64'] = 'same',
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class CautiousAdamW(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        normalize: Literal['count', 'mean', 'none'] = 'count',
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class CautiousLion(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.0001,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        normalize: Literal['count', 'mean', 'none'] = 'count',
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class ClippedAdam(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.0003,
        beta: float = 0.99,
        eps: float = 1e-08,
        per: Literal['element', 'tensor', 'model'] = 'element',
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class Conda(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        frequency: int = 2000,
        scale: float = 1.0,
        adam_lr: float = 0.001,
        adam_betas: tuple[float, float] = (0.9, 0.999),
        adam_eps: float = 1e-08,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
        roles: Mapping[str, Role] | None = None,
        by_role: Mapping[Role, Mapping[str, Any]] | None = None,
    ) -> None: ...

class DAdaptAdam(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 1.0,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        d0: float = 1e-06,
        growth: float = ...,
        decoupled_weight_decay: bool = False,
        use_bias_correction: bool = False,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class DAdaptSGD(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 1.0,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        d0: float = 1e-06,
        growth: float = ...,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class DiffGrad(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class DiffGradNorm(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        r: float = 0.95,
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class Dion(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.01,
        momentum: float = 0.95,
        rank: int = 64,
        weight_decay: float = 0.01,
        adam_lr: float = 0.001,
        adam_betas: tuple[float, float] = (0.9, 0.95),
        adam_eps: float = 1e-08,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
        roles: Mapping[str, Role] | None = None,
        by_role: Mapping[Role, Mapping[str, Any]] | None = None,
    ) -> None: ...

class Dion2(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.01,
        momentum: float = 0.95,
        fraction: float = 0.25,
        weight_decay: float = 0.01,
        adam_lr: float = 0.001,
        adam_betas: tuple[float, float] = (0.9, 0.95),
        adam_eps: float = 1e-08,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
        roles: Mapping[str, Role] | None = None,
        by_role: Mapping[Role, Mapping[str, Any]] | None = None,
    ) -> None: ...

class DistributedShampoo(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.995),
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        frequency: int = 10,
        block: int = 1024,
        start: int = 1,
        nesterov: bool = False,
        adam_eps: float = 1e-08,
        roots: Literal['eigh', 'newton'] = 'eigh',
        factors: Literal['same', 'float64'] = 'same',
        graft: Literal['adam', 'rmsprop', 'adagrad', 'sgd'] = 'adam',
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class DoG(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 1.0,
        reps_rel: float = 1e-06,
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        gamma: float = 8.0,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class DoWG(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 1.0,
        reps_rel: float = 0.0001,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class EAdam(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class FTRLAdam(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        l1: float = 0.0,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class FTRLProximal(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.1,
        beta: float = 1.0,
        l1: float = 0.0,
        l2: float = 0.0,
        growth: Literal['fixed', 'incremental', 'square', 'adaptive'] = 'fixed',
        initial: float = 0.0,
        shrinkage: float = 0.0,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class GaLore(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-06,
        weight_decay: float = 0.0,
        rank: int = 128,
        frequency: int = 200,
        scale: float = 0.25,
        adam_lr: float = 0.001,
        adam_betas: tuple[float, float] = (0.9, 0.999),
        adam_eps: float = 1e-08,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
        roles: Mapping[str, Role] | None = None,
        by_role: Mapping[Role, Mapping[str, Any]] | None = None,
    ) -> None: ...

class Grams(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class GroupFTRL(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.1,
        beta: float = 1.0,
        group: float = 0.001,
        per: Literal['row', 'column'] = 'row',
        l1: float = 0.0,
        l2: float = 0.0,
        growth: Literal['fixed', 'incremental', 'square', 'adaptive'] = 'fixed',
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class KATE(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        eta: float = 0.9,
        eps: float = 1e-08,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class KLSOAP(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        frequency: int = 10,
        factors: Literal['same', 'float64'] = 'same',
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class KLShampoo(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        frequency: int = 10,
        adam_lr: float = 0.001,
        adam_betas: tuple[float, float] = (0.9, 0.95),
        adam_eps: float = 1e-08,
        factors: Literal['same', 'float64'] = 'same',
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
        roles: Mapping[str, Role] | None = None,
        by_role: Mapping[Role, Mapping[str, Any]] | None = None,
    ) -> None: ...

class LAMB(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-06,
        weight_decay: float = 0.01,
        bias_correction: bool = True,
        max_grad_norm: float = 0.0,
        trust_clip: float = 0.0,
        longest: float = 0.0,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class LARS(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.1,
        momentum: float = 0.9,
        trust: float = 0.001,
        weight_decay: float = 0.0005,
        nesterov: bool = False,
        vectors: bool = False,
        trust_clip: bool = False,
        whole_steps: bool = False,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class LAWA(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        k: int = 5,
        every: int = 100,
        start: int = 0,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class LDAdam(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.908, 0.99),
        rho: float = 0.908,
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        rank: int = 16,
        adam_lr: float = 0.001,
        adam_betas: tuple[float, float] = (0.908, 0.99),
        adam_eps: float = 1e-08,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
        roles: Mapping[str, Role] | None = None,
        by_role: Mapping[Role, Mapping[str, Any]] | None = None,
    ) -> None: ...

class LDoG(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 1.0,
        reps_rel: float = 1e-06,
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        gamma: float = 8.0,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class LaProp(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.0004,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-15,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class LeanAMSGrad(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class Lion(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.0001,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class LionK(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        k: str = 'l2',
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class Lookahead(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        k: int = 5,
        alpha: float = 0.5,
        inner: Literal['keep', 'reset', 'pullback'] = 'keep',
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class MARSAdamW(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.003,
        betas: tuple[float, float] = (0.95, 0.99),
        gamma: float = 0.025,
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class MARSLion(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.0003,
        beta: float = 0.95,
        gamma: float = 0.025,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class MARSShampoo(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.003,
        beta: float = 0.95,
        gamma: float = 0.025,
        weight_decay: float = 0.0,
        steps: int = 5,
        adam_lr: float = 0.003,
        adam_betas: tuple[float, float] = (0.9, 0.95),
        adam_eps: float = 1e-08,
        adam_weight_decay: float = 0.1,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
        roles: Mapping[str, Role] | None = None,
        by_role: Mapping[Role, Mapping[str, Any]] | None = None,
    ) -> None: ...

class Mechanic(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        decay: float = 0.01,
        s_init: float = 1e-08,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class MoMo(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 1.0,
        beta: float = 0.9,
        floor: float = 0.0,
        estimate: bool = False,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class MoMoAdam(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        floor: float = 0.0,
        estimate: bool = False,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class Muon(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.1,
        steps: int = 5,
        scaling: Literal['original', 'rms', 'rms-to-rms'] = 'rms',
        polar: Literal['newton-schulz', 'polar-express'] = 'newton-schulz',
        adam_lr: float = 0.001,
        adam_betas: tuple[float, float] = (0.9, 0.95),
        adam_eps: float = 1e-08,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
        roles: Mapping[str, Role] | None = None,
        by_role: Mapping[Role, Mapping[str, Any]] | None = None,
    ) -> None: ...

class MuonClip(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        momentum: float = 0.95,
        weight_decay: float = 0.1,
        steps: int = 5,
        adam_lr: float = 0.001,
        adam_betas: tuple[float, float] = (0.9, 0.95),
        adam_eps: float = 1e-08,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
        roles: Mapping[str, Role] | None = None,
        by_role: Mapping[Role, Mapping[str, Any]] | None = None,
    ) -> None: ...

class NAdam(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.002,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        momentum_decay: float = 0.004,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class NAdamP(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        delta: float = 0.1,
        wd_ratio: float = 0.1,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class NAdamW(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class NIGT(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.01,
        beta: float = 0.9,
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class NSGDA(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.01,
        beta: float = 0.9,
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        together: bool = False,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class NorMuon(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        momentum: float = 0.95,
        beta2: float = 0.95,
        weight_decay: float = 0.1,
        steps: int = 5,
        scaling: Literal['original', 'rms', 'rms-to-rms'] = 'rms',
        adam_lr: float = 0.001,
        adam_betas: tuple[float, float] = (0.9, 0.95),
        adam_eps: float = 1e-08,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
        roles: Mapping[str, Role] | None = None,
        by_role: Mapping[Role, Mapping[str, Any]] | None = None,
    ) -> None: ...

class OnlineRMSprop(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.01,
        gamma: float = 0.9,
        eps: float = 1e-08,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class PNM(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.01,
        beta: float = 0.9,
        amplify: float = 1.0,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class Prodigy(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 1.0,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        d0: float = 1e-06,
        d_coef: float = 1.0,
        growth: float = 0.0,
        safeguard_warmup: bool = False,
        use_bias_correction: bool = False,
        beta3: float = 0.0,
        decouple: bool = True,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class ProximalAdamW(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class RAdam(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = False,
        variant: str = 'torch',
        degenerated_to_sgd: bool = True,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class RMSprop(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.01,
        alpha: float = 0.99,
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class RMSpropBC(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        beta: float = 0.99,
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class RMSpropTF(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.01,
        alpha: float = 0.9,
        eps: float = 1e-10,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class RowwiseAdagrad(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.01,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class SAdam(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.999),
        sharpness: float = 50.0,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class SCAdagrad(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.01,
        xi1: float = 0.1,
        xi2: float = 0.1,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class SCRMSprop(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.01,
        gamma: float = 0.9,
        xi1: float = 0.1,
        xi2: float = 0.1,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class SGD(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class SGDS(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.1,
        momentum: float = 0.9,
        dampening: float = 0.0,
        weight_decay: float = 0.0005,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class SGDW(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 0.01,
        nesterov: bool = False,
        proximal: bool = False,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class SM3(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.1,
        momentum: float = 0.0,
        eps: float = 1e-30,
        weight_decay: float = 0.0,
        variant: Literal['I', 'II'] = 'II',
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class SMMF(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        beta: float = 0.9,
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        decay_rate: float = -0.5,
        growth_rate: float = 0.999,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class SOAP(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.003,
        betas: tuple[float, float] = (0.95, 0.95),
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        frequency: int = 10,
        block: int = 0,
        factors: Literal['same', 'float64'] = 'same',
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class SPS(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 1.0,
        c: float = 0.5,
        floor: float = 0.0,
        growth: float = ...,
        eps: float = 1e-08,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class SPlus(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.1,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.01,
        ema: float = 0.999,
        frequency: int = 100,
        vectors: float = 0.001,
        block: int = 0,
        factors: Literal['same', 'float64'] = 'same',
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class SWA(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.05,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        start: int = 0,
        every: int = 1,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class SWAN(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        weight_decay: float = 0.0,
        steps: int = 5,
        adam_lr: float = 0.001,
        adam_betas: tuple[float, float] = (0.9, 0.95),
        adam_eps: float = 1e-08,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
        roles: Mapping[str, Role] | None = None,
        by_role: Mapping[Role, Mapping[str, Any]] | None = None,
    ) -> None: ...

class SWATS(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-09,
        weight_decay: float = 0.0,
        tolerance: float = 1e-05,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class ScheduleFreeAdamW(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.0025,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        decoupling: float = 0.0,
        decay_at_z: bool = False,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class ScheduleFreePlus(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 1.0,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        beta: float = 0.9,
        last_beta: float = 0.965,
        anneal: int = 0,
        warm: int = 0,
        r: float = 0.0,
        norm_beta: float = 0.0,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class ScheduleFreeRAdam(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.0025,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-08,
        weight_decay: float = 0.0,
        silent: bool = True,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class ScheduleFreeSGD(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 1.0,
        beta: float = 0.9,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class Scion(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        momentum: float = 0.9,
        constrained: bool = False,
        radius: float = 50.0,
        head_radius: float = 3000.0,
        steps: int = 5,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
        roles: Mapping[str, Role] | None = None,
        by_role: Mapping[Role, Mapping[str, Any]] | None = None,
    ) -> None: ...

class Shampoo(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.1,
        momentum: float = 0.0,
        eps: float = 0.0001,
        weight_decay: float = 0.0,
        frequency: int = 1,
        factors: Literal['same', 'float64'] = 'same',
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class SignSGD(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class Signum(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        beta: float = 0.9,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...

class SinkGD(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        weight_decay: float = 0.0,
        iterations: int = 5,
        adam_lr: float = 0.001,
        adam_betas: tuple[float, float] = (0.9, 0.95),
        adam_eps: float = 1e-08,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
        roles: Mapping[str, Role] | None = None,
        by_role: Mapping[Role, Mapping[str, Any]] | None = None,
    ) -> None: ...

class StableAdamW(Named):
    def __init__(
        self,
        params: Parameters,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-08,
        weight_decay: float = 0.01,
        *,
        maximize: bool = False,
        executor: Executor = 'auto',
        on_nonfinite: OnNonfinite = 'ignore',
        sparse: Rows = 'exact',
        blocks: Mapping[str, Blocks] | None = None,
    ) -> None: ...
