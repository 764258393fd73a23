//! The program; what it does is in the library.

#![no_std]
#![no_main]

freestanding::program!(lab_workloads::main);
