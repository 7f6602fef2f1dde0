"""All tests begin with the signals of a terminal's foreground, however they were started.

SPDX-License-Identifier: Apache-2.0

`nohup` and a shell's background jobs hand on ignored signals, which `outboard run` hands on in
turn: tests that send such a signal would wait for it for ever.
"""

import signal

for number, handler in (
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)
