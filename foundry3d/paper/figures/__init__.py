"""The qualitative figures of the paper (4 and 8 to 15), of any saved models and data.

`run` is the command. Each figure has a file that turns models and clouds into arrays, which the
functions of `page`, `panels` and `objects` draw.
"""

from foundry3d.extras import require_extra

require_extra("matplotlib", "sklearn")
