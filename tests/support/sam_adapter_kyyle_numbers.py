"""Numbers of the SAM-Adapter by Kyyle2114, with a deterministic fill."""

from sam_adapter_golden import Golden

ENCODED = Golden(
    -0.0115944, 1.000602, 4.448017, (1.63996, 1.00717, 2.21297), (0.888851, 1.66434, 1.60414)
)
