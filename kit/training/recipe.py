"""Whether the parameters of a training go together, asked before any work that they would waste."""

import inspect

from kit import ROOT
from kit.model.resnet import check_rules, resnet50
from kit.model.weights import check_fits
from kit.pipeline.augment import check_augmentation
from kit.pipeline.mixing import check_mixing
from kit.pipeline.preprocessing import check_crop
from kit.training import checks
from kit.training.schedule import rate_of_epoch


def check_recipe(parameters, *, hosts=1):
    """Raise ValueError in one line for what cannot work among notebook 02's `parameters`.

    Weights of another network in initial_weights among it; FileNotFoundError when it is no file.
    `hosts` share each batch.
    """
    for check in (
        check_rules,
        check_crop,
        check_augmentation,
        checks.check_sizes,
        checks.check_steps,
        checks.check_training_sizes,
        checks.check_loss,
        checks.check_optimizer,
        checks.check_saving,
        checks.check_bands,
    ):
        check(**_asked_by(check, parameters))
    rates = _asked_by(rate_of_epoch, parameters | {"epoch": 0})
    decay = {name: parameters[name] for name in ("weight_decay", "momentum", "learning_rate_batch")}
    checks.check_rates(rate_every=parameters["rate_every"], **rates, **decay)
    checks.check_decay(**_asked_by(checks.check_decay, parameters))
    mixing = _asked_by(check_mixing, parameters)
    check_mixing(**mixing | {"batch_size": parameters["batch_size"] // hosts})
    if parameters["initial_weights"]:
        check_initial_weights(parameters)


def check_initial_weights(parameters):
    """Raise ValueError for weights of another network; of another number of classes they may be.

    FileNotFoundError when there is no such file. Takes some seconds.
    """
    path = ROOT / parameters["initial_weights"]
    if not path.is_file():
        given = parameters["initial_weights"]
        raise FileNotFoundError(f"initial_weights: {given} is no file; give one, or empty text")
    wanted = set(inspect.signature(resnet50).parameters) & set(parameters)
    try:
        check_fits(path, **{name: parameters[name] for name in wanted})
    except ValueError as error:
        raise ValueError(f"initial_weights: {error}") from None


def _asked_by(function, parameters):
    return {name: parameters[name] for name in inspect.signature(function).parameters}
