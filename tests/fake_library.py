"""What another library may bring: networks with its own names for what a plan says."""

from torch import nn


class Halving(nn.Module):
    """A library's network: divides sizes by 4, returns several maps, and knows its dimensions by name."""

    def __init__(self, spatial_dims, in_channels, out_channels, width=4, img_size=None):
        super().__init__()
        conv = (nn.Conv2d, nn.Conv3d)[spatial_dims - 2]
        self.down, self.size = conv(in_channels, width, 4, 4), img_size
        self.up = (nn.ConvTranspose2d, nn.ConvTranspose3d)[spatial_dims - 2](width, out_channels, 4, 4)

    def forward(self, x):
        if tuple(x.shape[2:]) != self.size:
            raise AssertionError(f"made for {self.size}\nand more lines")
        return [self.up(self.down(x))]


class Deep(nn.Module):
    """A network with a second output, which comes from a part of its own."""

    def __init__(self, spatial_dims, in_channels, out_channels):
        super().__init__()
        conv = (nn.Conv2d, nn.Conv3d)[spatial_dims - 2]
        self.main, self.side = conv(in_channels, out_channels, 1), conv(in_channels, out_channels, 1)

    def forward(self, x):
        return [self.main(x), self.side(x)]


class Flat(nn.Module):
    """A library's network in 2D that names its classes as SMP does, and takes an encoder."""

    def __init__(self, encoder_name, in_channels, classes, **kwargs):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, classes, 3, padding=0 if encoder_name == "narrow" else 1)

    def forward(self, x):
        return self.conv(x)
