"""Run tests in a process that is patched for gevent or eventlet, as a worker would be.

`python -m tests.pools.patched gevent tests/pools/test_contract.py ...`
"""

import sys

from beatd import greenlets

if __name__ == "__main__":
    greenlets.patch(sys.argv[1])

    import pytest

    sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", *sys.argv[2:]]))
