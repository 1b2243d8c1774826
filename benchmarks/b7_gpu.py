"""Source training on one GPU: the airbench net on half the classes of 50,000 colour images of 32 × 32 pixels, 8 epochs
with flips and shifts, bfloat16. One model at a time with fastai, then several side by side. Without a GPU the same code
runs on a hundredth of the work: a look at whether it works, not a measurement."""
from common import check, flop_count, interleaved, medians, np, seconds, time, torch # first: it sets the threads

from transfer_influence.basics.recipe import Recipe, SourceSpec, TrainSpec
from transfer_influence.images.image_set import ImageSet
from transfer_influence.design.masks import sample_masks
from transfer_influence.training.inputs import net_inputs
from transfer_influence.training.fastai_loop import fit_fastai
from transfer_influence.training.resident_loop import Together
from transfer_influence.training.pipeline import Workbench, best_device, new_model

TITLE = 'GPU: fastai against several models side by side'
BAR_MODELS, BAR_PERCENT = 3000, 20
FULL = dict(classes=100, images=500, width=64, epochs=8, batch=1000)
SMALL = dict(classes=10, images=60, width=8, epochs=8, batch=50)


def pictures(classes:int, images:int) -> ImageSet:
    "For each class a smooth picture; its images are shifted and noisy."
    rng = np.random.default_rng(0)
    coarse = rng.random((classes, 8, 8, 3)).repeat(4, 1).repeat(4, 2)
    noise = rng.normal(0, .35, (classes, images, 32, 32, 3)).astype(np.float32)
    made = np.stack([[np.roll(c, rng.integers(-4, 5, 2), (0, 1)) for _ in range(images)] for c in coarse]) + noise
    x = (255*made.clip(0, 1)).astype(np.uint8).reshape(-1, 32, 32, 3)
    return ImageSet(x, np.arange(classes).repeat(images), tuple(f'class {k}' for k in range(classes)))

def bench_for(size:dict, device:str) -> Workbench:
    "What the models share, on the device."
    s = pictures(size['classes'], size['images'])
    spec = TrainSpec(net='airbench', width=size['width'], epochs=size['epochs'], batch_size=size['batch'], lr=.05,
                     augment='flip-crop', precision='bfloat16' if device == 'cuda' else 'float32')
    recipe = Recipe(source=SourceSpec(name='npz', path='in memory', size=32, channels=3), training=spec)
    x = net_inputs('airbench', s.images, spec.augment, device)
    return Workbench(recipe, x, torch.from_numpy(s.labels).to(device), s.labels, s.class_names, {}, 'together')

def nets_and_plans(bench, models):
    "Nets with fresh weights, and what each is to see."
    masks = sample_masks(max(2, len(models)), bench.class_names)
    nets, plans = zip(*[new_model(bench, masks[j], i) for j, i in enumerate(models)])
    return [n.to(bench.device) for n in nets], list(plans)

def accuracy(bench, net, plan) -> float:
    "On images that the net has seen."
    rows = torch.as_tensor(np.unique(plan.rows)[:2000], device=bench.device)
    with torch.no_grad(): return float((net.eval()(bench.x[rows]).argmax(1) == bench.y[rows]).float().mean())

def rate(bench, at_once:int, groups:int, accuracies:list) -> float: # models per hour
    "Several groups of models side by side; the recording of the graph is not counted."
    together = Together(bench.x, bench.y)
    def group(g):
        nets, plans = nets_and_plans(bench, range(g*at_once, (g + 1)*at_once))
        together.fit(nets, plans)
        accuracies.append(accuracy(bench, nets[0], plans[0]))
    t = interleaved(dict(group=group), groups, time.perf_counter)['group']
    return 3600*at_once*len(t)/sum(t)

def fastai_rate(bench, models:int, accuracies:list) -> float: # models per hour
    "One model at a time with fastai's `Learner` and the resident loader."
    def one(i):
        (net,), (plan,) = nets_and_plans(bench, [i])
        fit_fastai(net, bench.x, bench.y, plan)
        accuracies.append(accuracy(bench, net, plan))
    return 3600/medians(interleaved(dict(one=one), models, time.perf_counter))['one']

def peak(device:str) -> float: # TFLOP/s of a large product in the precision of the training
    "The GPU's own best, measured in the same run."
    n, dtype = (8192, torch.bfloat16) if device == 'cuda' else (512, torch.float32)
    a = torch.randn(n, n, device=device, dtype=dtype)
    def product():
        for _ in range(10): a@a
        if device == 'cuda': torch.cuda.synchronize()
    product()
    return 10*2e-12*n**3/min(seconds(time.perf_counter, product) for _ in range(3))

def run(quick:bool) -> dict:
    device = best_device()
    size, groups = (FULL, 1 if quick else 3) if device == 'cuda' else (SMALL, 1)
    bench, accuracies = bench_for(size, device), dict(fastai=[], together=[])
    at_once = {k: rate(bench, k, groups, accuracies['together']) for k in ((1, 2, 4) if device == 'cuda' else (2,))}
    fastai, best = fastai_rate(bench, 1, accuracies['fastai']), max(at_once.values())
    (net,), (plan,) = nets_and_plans(bench, [0])
    flops = flop_count(net, bench.x[torch.arange(100, device=bench.device)], bench.y[:100])/100
    percent = 1e-10*flops*plan.rows.size*best/3600/peak(device)
    checks = [check('models per hour', best, BAR_MODELS), check('% of peak', percent, BAR_PERCENT)]
    return dict(device=torch.cuda.get_device_name() if device == 'cuda' else 'cpu', size=size, checks=checks if
                device == 'cuda' else [], models_per_hour=dict(fastai=fastai, **{f'{k} at once': v for k, v in
                at_once.items()}), ratio=best/fastai, percent_of_peak=percent, mflop_per_image=flops/1e6,
                images_per_model=plan.rows.size, accuracy={k: float(np.median(v)) for k, v in accuracies.items()})

def table(result):
    rows = [['', result['device']]] + [[f'models per hour: {k}', v] for k, v in result['models_per_hour'].items()]
    keys = ('ratio', 'percent_of_peak', 'mflop_per_image', 'images_per_model')
    rows += [[k.replace('_', ' '), result[k]] for k in keys]
    return rows + [[f'accuracy on seen images: {k}', v] for k, v in result['accuracy'].items()]
