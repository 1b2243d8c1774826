# The front door: what `import transfer_influence as ti` offers. Each name is loaded from its module when first used.
from .basics.errors import InputError as InputError, UserError as UserError
from .basics.recipe import (
    DesignSpec as DesignSpec, Recipe as Recipe, RunSpec as RunSpec, SourceSpec as SourceSpec, TargetSpec as TargetSpec,
    TrainSpec as TrainSpec, load_recipe as load_recipe, shipped_recipes as shipped_recipes)
from .images.image_set import (
    ImageSet as ImageSet, digits as digits, glyphs as glyphs, mnist5k as mnist5k, resize_set as resize_set,
    select_classes as select_classes)
from .images.folders import image_folder as image_folder, load_images as load_images, save_images as save_images
from .design.units import SourceUnits as SourceUnits
from .design.masks import sample_masks as sample_masks
from .training.own_training import OwnTarget as OwnTarget, OwnTraining as OwnTraining
from .records.predictions import (
    Predictions as Predictions, from_arrays as from_arrays, load_predictions as load_predictions,
    save_predictions as save_predictions)
from .fleet.fleet import Fleet as Fleet, add_target as add_target, open_fleet as open_fleet
from .influence.result import (
    InfluenceResult as InfluenceResult, class_influence as class_influence)
from .influence.table_files import load_influence as load_influence, save_influence as save_influence
from .influence.reliability import (
    null_band as null_band, split_half as split_half, variance_report as variance_report)
from .influence.planning import expected_gain as expected_gain, plan_models as plan_models
from .influence.lds import lds as lds
from .analysis.curve import load_curves as load_curves
from .analysis.removal import curve_cost as curve_cost, removal_curve as removal_curve
from .analysis.budget_curve import (
    budget_cost as budget_cost, budget_curve as budget_curve, load_budget_curves as load_budget_curves)
from .analysis.prune import prune_classes as prune_classes
from .analysis.explore import project_labels as project_labels, subpopulations as subpopulations
from .analysis.failures import explain_failures as explain_failures
from .analysis.finders import (
    find_leakage as find_leakage, find_mislabeled as find_mislabeled, find_misleading as find_misleading)
from .show.report import make_report as make_report
from .show.explorer import explore as explore
