"""An attribute of that name which is a class's own affair."""

import io

from theus import TheusEngine


class Recorder:
    def __init__(self):
        self.shm = io.BytesIO()

    def stop(self):
        self.shm.close()


with TheusEngine(workers=1) as engine:
    recorder = Recorder()
    recorder.stop()
    recorder.shm.close()
    print(engine.run(pow, 2, 3))
