# The boot sector of a bootable image. The BIOS loads it to 0x7c00, in real mode, with the drive's number in DL.
#
#   0x05f0  the drive's number             0x0600  a packet for INT 13h    0x10000  32 KiB that were read
#   0x8000  tables.rs: descriptors, what the kernel is told, what is to be loaded
#
# It has no data of its own and is told no address but 0x7c00, so it needs no linker. References: "Enhanced Disk Drive Services"
# (INT 13h, AH=42h), ACPI 6.5, 15.1 (INT 15h, E820h), Intel SDM volume 3, 10.9.1 (switching to protected mode).

.pushsection .rodata.lab_boot_sector, "a"
.global lab_boot_sector
.global lab_boot_sector_end
.code16
lab_boot_sector:
    cli
    cld
    xor eax, eax
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov esp, 0x7c00
    .byte 0xea                          # a far jump, for some BIOSes begin at 07c0:0000
    .word 0x7c00 + (10f - lab_boot_sector), 0
10: sti
    mov byte ptr [0x5f0], dl
    mov ax, 0x2401                      # address line 20 on, where the BIOS has left it off
    int 0x15

    # The tables: 16 sectors behind this one.
    mov dword ptr [0x600], 0x00100010   # the packet: its own size, sectors,
    mov dword ptr [0x604], 0x08000000   # where to, as segment:offset,
    mov dword ptr [0x608], 1            # from which sector
    mov dword ptr [0x60c], 0
    mov si, 0x600
    mov ah, 0x42
    int 0x13
    jc 90f

    # Each part: first sector, sectors left, where to. The last has no sectors.
    mov bx, 0x8800
20: mov ecx, dword ptr [bx + 4]
    test ecx, ecx
    jz 40f
30: mov ecx, dword ptr [bx + 4]
    cmp ecx, 64
    jbe 31f
    mov ecx, 64
31: mov word ptr [0x602], cx
    mov dword ptr [0x604], 0x10000000
    mov eax, dword ptr [bx]
    mov dword ptr [0x608], eax
    push ecx
    push bx
    mov dl, byte ptr [0x5f0]
    mov si, 0x600
    mov ah, 0x42
    int 0x13
    pop bx
    pop ecx
    jc 90f

    # Beyond the first MiB by "unreal" mode: data segments that keep the limit they were given in protected mode.
    cli
    lgdt [0x8000]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    mov dx, 0x10
    mov ds, dx
    mov es, dx
    and al, 0xfe
    mov cr0, eax
    mov esi, 0x10000
    mov edi, dword ptr [bx + 8]
    push ecx
    shl ecx, 7                          # 512 bytes are 128 times four
    .byte 0x67, 0xf3, 0x66, 0xa5        # rep movsd, by ESI and EDI
    pop ecx
    xor dx, dx
    mov ds, dx
    mov es, dx
    sti
    add dword ptr [bx], ecx
    sub dword ptr [bx + 4], ecx
    shl ecx, 9
    add dword ptr [bx + 8], ecx
    cmp dword ptr [bx + 4], 0
    jne 30b
    add bx, 12
    jmp 20b

    # What memory there is: entries of 20 bytes, 24 apart, as PVH wants them; counted in its structure.
40: xor ebx, ebx
    mov di, 0x80a0
41: mov eax, 0xe820
    mov edx, 0x534d4150
    mov ecx, 20
    int 0x15
    jc 42f
    add di, 24
    inc dword ptr [0x8050]
    cmp di, 0x83a0
    jae 42f
    test ebx, ebx
    jnz 41b

    # PVH: 32 bits, no paging, EBX at the structure (Xen, "x86/HVM direct boot ABI").
42: cli
    lgdt [0x8000]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    .byte 0xea
    .word 0x7c00 + (50f - lab_boot_sector), 8
.code32
50: mov ax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov ebx, 0x8020
    mov eax, dword ptr [0x8080]
    jmp eax

.code16
90: mov ax, 0x0e21                      # an exclamation mark: the disk cannot be read
    int 0x10
91: hlt
    jmp 91b
lab_boot_sector_end:
.code64
.popsection
