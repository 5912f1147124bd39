"""A pytest plugin: no extra is installed. `-p without_extras`"""

import sys

from extras import EXTRAS

sys.modules.update(dict.fromkeys(EXTRAS))  # what is None there is not found
