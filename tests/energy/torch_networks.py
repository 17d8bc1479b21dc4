"""The networks once more, written with torch's layers after the publications and torchvision, as an oracle.

Everything runs on torch's meta device: shapes without numbers.
"""


def conv_bn(t, a, b, kernel, stride=1):
    return t.Sequential(t.Conv2d(a, b, kernel, stride, kernel // 2, bias=False), t.BatchNorm2d(b), t.ReLU())


def resnet(torch, depth, variant="v1.5"):
    t = torch.nn

    class Add(t.Module):
        def forward(self, a, b):
            return a + b

    class Block(t.Module):
        def __init__(self, a, width, stride):
            super().__init__()
            if depth < 50:
                out, shapes = width, [(a, width, 3, stride), (width, width, 3, 1)]
            else:
                out, early = 4 * width, variant == "v1"
                shapes = [(a, width, 1, stride if early else 1), (width, width, 3, 1 if early else stride),
                          (width, out, 1, 1)]
            parts = [conv_bn(t, *shape) for shape in shapes]
            parts[-1] = parts[-1][:2]
            self.body, self.add, self.relu = t.Sequential(*parts), Add(), t.ReLU()
            self.side = conv_bn(t, a, out, 1, stride)[:2] if stride != 1 or a != out else t.Identity()

        def forward(self, x):
            return self.relu(self.add(self.body(x), self.side(x)))

    layers, channels = [conv_bn(t, 3, 64, 7, 2), t.MaxPool2d(3, 2, 1)], 64
    for stage, blocks in enumerate({18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}[depth]):
        for i in range(blocks):
            layers.append(Block(channels, 64 * 2 ** stage, 2 if stage > 0 and i == 0 else 1))
            channels = 64 * 2 ** stage * (1 if depth < 50 else 4)
    return t.Sequential(*layers, t.AdaptiveAvgPool2d(1), t.Flatten(), t.Linear(channels, 1000))


def alexnet(torch):
    t = torch.nn
    return t.Sequential(
        t.Conv2d(3, 64, 11, 4, 2), t.ReLU(), t.MaxPool2d(3, 2), t.Conv2d(64, 192, 5, padding=2), t.ReLU(),
        t.MaxPool2d(3, 2), t.Conv2d(192, 384, 3, padding=1), t.ReLU(), t.Conv2d(384, 256, 3, padding=1), t.ReLU(),
        t.Conv2d(256, 256, 3, padding=1), t.ReLU(), t.MaxPool2d(3, 2), t.AdaptiveAvgPool2d(6), t.Flatten(),
        t.Linear(9216, 4096), t.ReLU(), t.Linear(4096, 4096), t.ReLU(), t.Linear(4096, 1000))


def vgg16(torch, batch_norm=False):
    t, layers, channels = torch.nn, [], 3
    for out in (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"):
        if out == "M":
            layers.append(t.MaxPool2d(2))
            continue
        layers += [t.Conv2d(channels, out, 3, padding=1), *[t.BatchNorm2d(out)] * batch_norm, t.ReLU()]
        channels = out
    return t.Sequential(*layers, t.Flatten(), t.Linear(25088, 4096), t.ReLU(), t.Linear(4096, 4096), t.ReLU(),
                        t.Linear(4096, 1000))


def googlenet(torch, large_kernel, last_pool, aux):
    t = torch.nn

    class Inception(t.Module):
        def __init__(self, a, one, r3, three, r5, five, project):
            super().__init__()
            self.branches = t.ModuleList([
                conv_bn(t, a, one, 1), t.Sequential(conv_bn(t, a, r3, 1), conv_bn(t, r3, three, 3)),
                t.Sequential(conv_bn(t, a, r5, 1), conv_bn(t, r5, five, large_kernel)),
                t.Sequential(t.MaxPool2d(3, 1, 1), conv_bn(t, a, project, 1))])

        def forward(self, x):
            return torch.cat([branch(x) for branch in self.branches], 1)

    class Head(t.Module):
        """The auxiliary classifier; passes its input on."""

        def __init__(self, a):
            super().__init__()
            self.body = t.Sequential(t.AvgPool2d(5, 3), conv_bn(t, a, 128, 1), t.Flatten(), t.Linear(2048, 1024),
                                     t.ReLU(), t.Linear(1024, 1000))

        def forward(self, x):
            self.body(x)
            return x

    def pool(kernel):
        return t.MaxPool2d(kernel, 2, ceil_mode=True)

    return t.Sequential(
        conv_bn(t, 3, 64, 7, 2), pool(3), conv_bn(t, 64, 64, 1), conv_bn(t, 64, 192, 3), pool(3),
        Inception(192, 64, 96, 128, 16, 32, 32), Inception(256, 128, 128, 192, 32, 96, 64), pool(3),
        Inception(480, 192, 96, 208, 16, 48, 64), *[Head(512)] * aux, Inception(512, 160, 112, 224, 24, 64, 64),
        Inception(512, 128, 128, 256, 24, 64, 64), Inception(512, 112, 144, 288, 32, 64, 64), *[Head(528)] * aux,
        Inception(528, 256, 160, 320, 32, 128, 128), pool(last_pool), Inception(832, 256, 160, 320, 32, 128, 128),
        Inception(832, 384, 192, 384, 48, 128, 128), t.AdaptiveAvgPool2d(1), t.Flatten(), t.Linear(1024, 1000))


def record(torch, build, *size):
    """Run a picture through ``build()`` and note what each layer saw, in order: (kind, shape facts)."""
    t, seen = torch.nn, []
    kinds = {t.BatchNorm2d: "batch_norm", t.ReLU: "relu", t.MaxPool2d: "max_pool", t.AvgPool2d: "avg_pool",
             t.AdaptiveAvgPool2d: "avg_pool"}

    def hook(layer, args, out):
        x, params = args[0], sum(p.numel() for p in layer.parameters())
        if isinstance(layer, t.Conv2d):
            seen.append(("conv2d", layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride,
                         layer.padding, tuple(x.shape[2:]), tuple(out.shape[2:]), params,
                         out.numel() * layer.weight[0].numel()))
        elif isinstance(layer, t.Linear):
            seen.append(("linear", layer.in_features, layer.out_features, params, layer.weight.numel()))
        elif type(layer).__name__ == "Add":
            seen.append(("add", out.numel(), 2 * out.numel(), 0))
        elif type(layer) in kinds and not (isinstance(layer, t.AdaptiveAvgPool2d) and x.shape == out.shape):
            seen.append((kinds[type(layer)], out.numel(), x.numel(), params))
    with torch.device("meta"), torch.no_grad():
        model = build().eval()
        for layer in model.modules():
            if not list(layer.children()):
                layer.register_forward_hook(hook)
        model(torch.zeros(1, *size))
    return seen
