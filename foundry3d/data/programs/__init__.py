"""Random programs: millions of unlabelled shapes for pre-training, made when they are read.

A program is a list of primitives with copies, unions, cuts and deformations, and a sensor that sees
the result. `rows`, `placing` and `sensing` say how it is written down; `furniture`, `things` and
`wild` write programs at random; `running` turns one into points.
"""

from foundry3d.data.programs.source import ProgramBatches, Programs, program, programs_in

__all__ = ["ProgramBatches", "Programs", "program", "programs_in"]
