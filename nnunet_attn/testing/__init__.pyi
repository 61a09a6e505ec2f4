from .check import assert_network as assert_network, check_network as check_network
from .report import Finding as Finding, NetworkReport as NetworkReport
