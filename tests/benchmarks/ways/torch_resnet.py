"""ResNet-50 version 1.5 in PyTorch, written from the paper: the truth beside the kit's network."""

import torch
from torch import nn


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 and the shortcut (He et al. 2015, figure 5), the stride on the 3x3."""

    def __init__(self, channels, filters, stride, project):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(filters)
        self.conv3 = nn.Conv2d(filters, 4 * filters, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(4 * filters)
        self.shortcut = nn.Identity()
        if project:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, 4 * filters, 1, stride, bias=False),
                nn.BatchNorm2d(4 * filters),
            )

    def forward(self, x):
        y = torch.relu(self.norm1(self.conv1(x)))
        y = torch.relu(self.norm2(self.conv2(y)))
        return torch.relu(self.norm3(self.conv3(y)) + self.shortcut(x))


def resnet50(classes, width=64, stage_sizes=(3, 4, 6, 3)):
    """Give the network: float pixels [batch, 3, height, width] -> logits [batch, classes]."""
    layers = [
        nn.Conv2d(3, width, 7, 2, padding=3, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, padding=1),
    ]
    channels = width
    for stage, blocks in enumerate(stage_sizes):
        filters = width * 2**stage
        for number in range(blocks):
            stride = 2 if stage and not number else 1
            layers.append(Bottleneck(channels, filters, stride, project=not number))
            channels = 4 * filters
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)
    )
