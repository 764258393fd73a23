//! Which devices the container may open or make: a list of rules, of which the last that fits an access decides.
//!
//! Version 1 takes the list as it is (Documentation/admin-guide/cgroup-v1/devices.rst). Version 2 has no such controller:
//! there the kernel asks an eBPF program that is attached to the cgroup (cgroup-v2.rst, "Device controller"), and the
//! list becomes one here: the rules backwards, each a few comparisons and a verdict.

use oci_spec::runtime::{LinuxDeviceType, LinuxResources};

use crate::error::{Error, Result};
use crate::sys::bpf::Instruction;

/// The bits of an access, as the kernel numbers them (BPF_DEVCG_ACC_*, linux/bpf.h).
const MKNOD: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;
const ANY: u8 = MKNOD | READ | WRITE;

/// One rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    allow: bool,
    /// 'a' is all, 'b' block, 'c' character.
    typ: char,
    /// None is any.
    major: Option<u32>,
    minor: Option<u32>,
    access: u8,
}

const fn always(typ: char, major: Option<u32>, minor: Option<u32>, access: u8) -> Rule {
    Rule { allow: true, typ, major, minor, access }
}

/// What the specification's own default devices need (config-linux.md, "Default Devices"), or the container could not
/// open its /dev/null: null, zero, full, random, urandom, tty, console, ptmx, terminals; and to make nodes is harmless.
const ALWAYS: &[Rule] = &[
    always('c', None, None, MKNOD),
    always('b', None, None, MKNOD),
    always('c', Some(1), Some(3), ANY),
    always('c', Some(1), Some(5), ANY),
    always('c', Some(1), Some(7), ANY),
    always('c', Some(1), Some(8), ANY),
    always('c', Some(1), Some(9), ANY),
    always('c', Some(5), Some(0), ANY),
    always('c', Some(5), Some(1), ANY),
    always('c', Some(5), Some(2), ANY),
    always('c', Some(136), None, ANY),
];

/// The rules of the specification, with those that always hold where anything is denied.
pub(super) fn rules(resources: &LinuxResources) -> Result<Vec<Rule>> {
    let mut rules = Vec::new();
    for (index, rule) in resources.devices().iter().flatten().enumerate() {
        let field = |name: &str| format!("linux.resources.devices[{index}].{name}");
        // A negative number is any; and so is none.
        let number = |name: &str, number: Option<i64>| {
            let number = number.filter(|number| *number >= 0);
            let reason = "is larger than a device number can be";
            number.map(u32::try_from).transpose().map_err(|_| Error::config(field(name), reason))
        };
        let typ = match rule.typ().unwrap_or_default() {
            LinuxDeviceType::A => 'a',
            LinuxDeviceType::B => 'b',
            LinuxDeviceType::C | LinuxDeviceType::U => 'c',
            LinuxDeviceType::P => {
                return Err(Error::config(field("type"), "a FIFO is no device: use a, b or c"));
            }
        };
        let mut access = 0;
        for letter in rule.access().as_deref().unwrap_or_default().chars() {
            access |= match letter {
                'r' => READ,
                'w' => WRITE,
                'm' => MKNOD,
                _ => return Err(Error::config(field("access"), format!("{letter:?} is none of r, w and m"))),
            };
        }
        let access = if access == 0 { ANY } else { access };
        let (major, minor) = (number("major", rule.major())?, number("minor", rule.minor())?);
        rules.push(Rule { allow: rule.allow(), typ, major, minor, access });
    }
    if rules.iter().any(|rule| !rule.allow) {
        rules.extend_from_slice(ALWAYS);
    }
    Ok(rules)
}

impl Rule {
    fn fits_all(self) -> bool {
        self.typ == 'a' && self.access == ANY && self.major.is_none() && self.minor.is_none()
    }

    /// The file and the line of version 1.
    pub(super) fn line(self) -> (&'static str, String) {
        let file = if self.allow { "devices.allow" } else { "devices.deny" };
        if self.typ == 'a' {
            return (file, "a".to_owned());
        }
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
        let bits = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')];
        let access: String =
            bits.iter().filter(|(bit, _)| self.access & bit != 0).map(|(_, letter)| letter).collect();
        (file, format!("{} {}:{} {access}", self.typ, number(self.major), number(self.minor)))
    }

    /// Returns the verdict if the rule fits, and falls through otherwise. A permission must cover all that is asked for;
    /// a prohibition stands in the way of any of it.
    fn instructions(self) -> Vec<Instruction> {
        let mut tests = Vec::new();
        match self.typ {
            'b' => tests.push(Instruction::unless_equal(TYPE, 1)),
            'c' => tests.push(Instruction::unless_equal(TYPE, 2)),
            _ => {}
        }
        if self.access != ANY {
            tests.push(Instruction::copy(SCRATCH, ACCESS));
            if self.allow {
                tests.push(Instruction::and(SCRATCH, i32::from(ANY & !self.access)));
                tests.push(Instruction::unless_equal(SCRATCH, 0));
            } else {
                tests.push(Instruction::and(SCRATCH, i32::from(self.access)));
                tests.push(Instruction::if_equal(SCRATCH, 0));
            }
        }
        for (register, number) in [(MAJOR, self.major), (MINOR, self.minor)] {
            tests.extend(number.map(|number| Instruction::unless_equal(register, number as i32)));
        }
        let length = tests.len();
        for (index, test) in tests.iter_mut().enumerate() {
            test.jump_over(length - index - 1 + 2); // the tests after it, and the verdict
        }
        tests.extend([Instruction::set(RESULT, i32::from(self.allow)), Instruction::exit()]);
        tests
    }
}

/// The machine's registers, and what the program keeps in them.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const TYPE: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

/// The program of version 2. Its context is a `struct bpf_cgroup_dev_ctx` (linux/bpf.h): access and type in one word, then
/// the two numbers. What no rule fits is allowed, as in version 1, where a cgroup begins with all devices.
pub(super) fn program(rules: &[Rule]) -> Vec<Instruction> {
    let mut program = vec![
        Instruction::load(TYPE, CONTEXT, 0),
        Instruction::copy(ACCESS, TYPE),
        Instruction::shift_right(ACCESS, 16),
        Instruction::and(TYPE, 0xffff),
        Instruction::load(MAJOR, CONTEXT, 4),
        Instruction::load(MINOR, CONTEXT, 8),
    ];
    for rule in rules.iter().rev() {
        program.extend(rule.instructions());
        if rule.fits_all() {
            return program; // the kernel takes no program with instructions that are never reached
        }
    }
    program.extend([Instruction::set(RESULT, 1), Instruction::exit()]);
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(json: &str) -> Vec<Rule> {
        rules(&serde_json::from_str(json).unwrap()).unwrap()
    }

    #[test]
    fn a_denied_machine_still_has_its_null_device() {
        let rules = parsed(r#"{"devices":[{"allow":false,"access":"rwm"}]}"#);
        let lines: Vec<_> = rules.iter().map(|rule| rule.line()).collect();
        assert_eq!(lines[0], ("devices.deny", "a".to_owned()));
        assert!(lines.contains(&("devices.allow", "c 1:3 rwm".to_owned())));
        assert!(lines.contains(&("devices.allow", "c *:* m".to_owned())));
    }

    #[test]
    fn the_last_rule_that_fits_decides() {
        let rules = parsed(
            r#"{"devices":[{"allow":false,"access":"rwm"},
            {"allow":true,"type":"b","major":7,"minor":-1,"access":"rw"},{"allow":false,"type":"b","major":7,"minor":3,"access":"w"}]}"#,
        );
        let program = program(&rules);
        let asked = |typ: u32, access: u8, major, minor| {
            Instruction::interpret(&program, &[u32::from(access) << 16 | typ, major, minor]) == 1
        };
        assert!(asked(1, READ | WRITE, 7, 2) && asked(1, READ, 7, 3));
        assert!(!asked(1, READ | WRITE, 7, 3) && !asked(1, READ, 8, 2) && !asked(2, READ, 7, 2));
        assert!(asked(2, ANY, 1, 3) && asked(2, READ, 136, 90) && asked(1, MKNOD, 8, 0));
    }

    #[test]
    fn an_access_that_is_none_is_refused() {
        let resources = serde_json::from_str(r#"{"devices":[{"allow":true,"access":"rx"}]}"#).unwrap();
        let error = rules(&resources).unwrap_err().to_string();
        assert!(error.starts_with("linux.resources.devices[0].access: 'x'"), "{error}");
    }
}
