/* The ELF note by which a worker knows this library for the shim and does not load it as a driver.
   SPDX-License-Identifier: Apache-2.0 */
    .section .note.outboard, "a", %note
    .balign 4
    .long 2f - 1f   /* length of the name */
    .long 4f - 3f   /* length of the content */
    .long 1         /* type: this is the CUDA shim */
1:  .asciz "outboard"
2:  .balign 4
3:  .asciz "shim"
4:  .balign 4
    .section .note.GNU-stack, "", %progbits
