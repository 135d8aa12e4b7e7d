import time


def greet(name):
    time.sleep(2)
    print(f"hello {name}", flush=True)
