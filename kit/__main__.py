import sys

from kit.run import main

if __name__ == "__main__":
    sys.exit(main())
