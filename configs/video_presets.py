"""What configs/video.py sets for each data set and model.

Numbers are OpenSTL's. Those marked * are our choice, where what we know of it is silent; patches,
`sr_size` and `downscale` follow from its published parameter counts and operations.
"""

import collections

# size: rows, columns. windows: of an epoch; with a * an estimate, it only sets `steps`.
Data = collections.namedtuple('Data', 'size channels t_in t_out epochs windows')
DATASETS = dict(
    moving_mnist=Data((64, 64), 1, 10, 10, 200, 10000),
    kth=Data((128, 128), 1, 10, 20, 100, 5000),  # *
    taxibj=Data((32, 32), 2, 4, 4, 50, 20461),
    bair=Data((64, 64), 3, 4, 12, 20, 648960),  # epochs *
    kitticaltech=Data((128, 160), 3, 10, 1, 100, 3000),  # *
    human=Data((256, 256), 3, 4, 4, 50, 73404),
    kinetics=Data((256, 256), 3, 4, 4, 50, 100000),  # epochs *, windows *
    weatherbench=Data((32, 64), 1, 12, 12, 50, 52500),  # t2m at 5.625 degrees
    kth40=Data((128, 128), 1, 10, 40, 100, 5000),  # *
    moving_fmnist=Data((64, 64), 1, 10, 10, 200, 10000),
    moving_mnist_cifar=Data((64, 64), 3, 10, 10, 200, 10000),
    noisy_mnist=Data((64, 64), 1, 10, 10, 200, 10000),
    weatherbench_uv10=Data((32, 64), 2, 12, 12, 50, 52500),
    weatherbench_mv=Data((32, 64), 12, 4, 4, 50, 54000),  # windows *
    # GS2PM's; epochs and windows of these are *.
    hko7=Data((128, 128), 1, 5, 15, 50, 31551),
    shanghai2020=Data((128, 128), 1, 10, 10, 50, 33000),
    sevir=Data((128, 128), 1, 13, 18, 50, 7624))
# Sets that take the sizes of another one, whose frames are alike.
LIKE = dict(
    kth40='kth', moving_fmnist='moving_mnist', moving_mnist_cifar='moving_mnist',
    noisy_mnist='moving_mnist', weatherbench_uv10='weatherbench', weatherbench_mv='weatherbench',
    hko7='kth', shanghai2020='kth', sevir='kth')
# Frames between the starts of windows, where it is not 1: as published.
STRIDE = dict(hko7=5, sevir=49)

# SimVP with every translator, and TAU.
_WIDE = dict(hid_S=64, hid_T=512, N_S=4, N_T=8)
_FINE = dict(hid_S=64, hid_T=256, N_S=2, N_T=6, drop_path=0.2)
_LOW = dict(hid_S=32, hid_T=256, N_S=2, N_T=8, drop_path=0.1)
_LARGE = dict(hid_S=64, hid_T=256, N_S=4, N_T=8)  # * but for the published count
SIMVP = dict(
    moving_mnist=_WIDE, kth=_FINE, taxibj=_LOW, bair=_WIDE, kitticaltech=_FINE, human=_LARGE,
    kinetics=_LARGE, weatherbench=_LOW)
SIMVP_OF = dict(
    tau=dict(SIMVP, kitticaltech=_WIDE, human=_WIDE),
    incepu=dict(SIMVP, kitticaltech=dict(_FINE, N_T=4), human=dict(_WIDE, N_T=6)))
SIMVP_OPTIMIZER = dict(
    taxibj=dict(learning_rate=5e-4, schedule='cosine', warmup_epochs=5.0),
    kitticaltech=dict(learning_rate=5e-3),
    weatherbench=dict(learning_rate=5e-3, schedule='cosine'))

# Recurrent networks: 4 x 128, 5 x 5 everywhere; the sides of their patches.
_FOUR = dict(features=(128,) * 4, kernel_size=5)
PATCH = dict(
    moving_mnist=4, kth=2, taxibj=2, bair=2, kitticaltech=2, human=4, kinetics=4,
    weatherbench=2)  # bair *, kinetics *
PATCH_OF = dict(
    e3dlstm=dict(PATCH, kth=8, bair=4, kitticaltech=4, human=8, kinetics=8, weatherbench=4),
    mim=dict(PATCH, kth=4, weatherbench=4))
WHOLE = ('mau', 'phydnet', 'prednet', 'crevnet', 'dmvfn')  # see frames, not patches
PAPER = dict(
    convlstm=_FOUR, predrnn=_FOUR, predrnnpp=_FOUR, predrnnv2=_FOUR, mim=_FOUR, e3dlstm=_FOUR,
    mau=dict(features=(64,) * 4, kernel_size=5, tau=5), crevnet=dict(any_size=True))
SR_SIZE = dict(
    moving_mnist=4, kth=2, taxibj=2, bair=2, kitticaltech=2, human=4, kinetics=4, weatherbench=2)
RATE = dict(
    convlstm=5e-4, predrnn=5e-4, predrnnpp=1e-4, predrnnv2=5e-4, mim=5e-4, e3dlstm=1e-4, mau=1e-3,
    crevnet=5e-4, dmvfn=1e-4)  # crevnet *, dmvfn *; others 1e-3 *

# Minutes on two cores; all our choice.
_TWO = dict(features=(32, 32), kernel_size=3)
SMALL = dict(
    {k: _TWO for k in ('convlstm', 'predrnn', 'predrnnpp', 'predrnnv2', 'mim')},
    e3dlstm=dict(_TWO, recall=8), mau=dict(_TWO, sr_size=4),
    phydnet=dict(features=32, hidden=(32, 32)), prednet=dict(features=(16, 32)),
    crevnet=dict(layers=2, blocks=(2, 1), any_size=True),
    dmvfn=dict(features=(16, 16, 8), scales=(4, 2, 1), routing_features=8))
SMALL_SIMVP = dict(hid_S=8, hid_T=64, N_S=2, N_T=3)
SMOKE = dict(
    {k: dict(features=(8, 8)) for k in SMALL if k != 'crevnet'},
    phydnet=dict(features=32, hidden=(16,)), prednet=dict(features=(8,)),
    crevnet=dict(layers=1, blocks=(1, 1)), dmvfn=dict(features=(8, 8), scales=(2, 1)))
SMOKE_SIMVP = dict(hid_S=4, hid_T=16, N_S=2, N_T=2)

LOSS = dict(e3dlstm='mse+mae', prednet='mae', dmvfn='none')
TERM_WEIGHTS = dict(
    predrnnv2=dict(decouple=0.1), tau=dict(diff_div=0.1), crevnet=dict(overlap=2.0),
    prednet={f'error_{i}': 0.2 for i in range(1, 5)}, dmvfn=dict(laplacian=1.0))
ALWAYS_TRUE = ('prednet', 'crevnet', 'dmvfn')  # trained on true frames only
