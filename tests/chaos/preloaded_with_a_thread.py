"""A module that has a thread once it is imported, so that the zygote must not fork."""

import threading

threading.Thread(target=threading.Event().wait, daemon=True).start()
