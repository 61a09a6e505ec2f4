"""The row: what ``nnunet-attn list`` and ``info`` say of the network. Imports nothing heavy."""

from nnunet_attn.api import Cost, Entry, Family

ROW = Entry(
    family=Family("My network", "no paper", "my own design", ablations={"noGate": "skips without gates"}),
    trainer="nnUNetTrainerMyNetwork",
    network="my_network.network.MyNetwork",
    cost=Cost(983_780, 1.345),
    ablation_costs={"noGate": Cost(961_780, 1.294)},
    options=("width", "gate"),
    arguments={"strides": ((1, 1), (2, 2), (2, 2), (2, 2), (2, 2))},
    dimensions=(2, 3),
)
