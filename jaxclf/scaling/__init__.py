"""Many devices and many processes: the same programs over a mesh, with rows of data shared out."""

from jaxclf.scaling.mesh import make_mesh as make_mesh
from jaxclf.scaling.processes import distributed as distributed
from jaxclf.scaling.sharing import share_rows as share_rows
