//! `lab lesson --help` in Spanish. What a check says is in the lessons' own texts.

use clap::{Arg, ArgAction, Command};

/// Of a subcommand: its name, what it does, and its arguments, each with what it is.
type Action = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

const ACTIONS: &[Action] = &[
    ("list", "Muestra las lecciones y hasta dónde llegaste", &[]),
    ("start", "Hace una carpeta con el programa de la lección, para que lo completes", AT),
    (
        "check",
        "Comprueba el programa",
        &[("lesson", LESSON), ("folder", FOLDER), ("format", "Imprime el resultado para otros programas")],
    ),
    ("watch", "Comprueba el programa cada vez que lo guardas, hasta que pasa", AT),
    (
        "hint",
        "Da una pista; si la pides otra vez, una más clara",
        &[("lesson", LESSON), ("level", "Cuál, de 1 a 3")],
    ),
    ("solution", "Imprime una manera de hacerla", &[("lesson", LESSON)]),
    (
        "send",
        "Envía todos los resultados al servidor del curso",
        &[
            ("server", "Dónde escucha `lab classroom serve`, como SERVIDOR:PUERTO"),
            ("name", "Tu nombre"),
            ("token", "El token del curso"),
        ],
    ),
    ("export", "Imprime todos los resultados para otros programas", &[("format", "El formato")]),
];
const AT: &[(&str, &str)] = &[("lesson", LESSON), ("folder", FOLDER)];
const LESSON: &str = "La lección, una de las que muestra `lab lesson list`";
const FOLDER: &str = "Su carpeta, si no se llama como la lección";

/// The words that clap would say in English.
const TEMPLATE: &str = "{about-with-newline}\nUso: {usage}\n\n{all-args}{after-help}";

/// `lab lesson` with its help in Spanish.
pub fn lesson(command: Command) -> Command {
    let mut command = worded(command)
        .about("Aprende construyendo: lecciones que se comprueban solas en esta máquina")
        .long_about(
            "Aprende construyendo: lecciones que se comprueban solas en esta máquina.\n\nUna lección es un pequeño \
             programa en Rust con huecos, tomado de un paso del código real. `check` lo compila, lo ejecuta en una \
             caja de arena y lo mira desde fuera; lo que está mal se dice junto con lo que se vio. Nada necesita red.",
        )
        .subcommand_help_heading("Órdenes")
        .after_help("Ejemplos:\n  lab lesson list\n  lab lesson start pid-namespace\n  lab lesson watch pid-namespace")
        .mut_arg("lang", |arg| arg.help("Habla este idioma en lugar del de la configuración regional"));
    for (name, about, arguments) in ACTIONS {
        command = command.mut_subcommand(name, |action| {
            let action = worded(action.about(*about));
            arguments.iter().fold(action, |action, (argument, help)| {
                action.mut_arg(argument, |argument| argument.help(*help))
            })
        });
    }
    command
}

/// With Spanish words where clap has English ones of its own.
fn worded(command: Command) -> Command {
    let help = Arg::new("help").short('h').long("help").action(ArgAction::Help).help("Muestra esta ayuda");
    command.help_template(TEMPLATE).disable_help_flag(true).arg(help).mut_args(|argument| {
        let heading = if argument.is_positional() { "Argumentos" } else { "Opciones" };
        argument.help_heading(heading)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn every_action_and_argument_that_is_shown_is_told_in_spanish() {
        let command = super::super::Cli::command();
        let original = command.find_subcommand("lesson").expect("the command");
        for action in original.get_subcommands().filter(|action| !action.is_hide_set()) {
            let (_, _, arguments) =
                ACTIONS.iter().find(|(name, ..)| *name == action.get_name()).expect("its text in Spanish");
            for argument in action.get_arguments().filter(|argument| argument.get_id() != "lang") {
                let known = arguments.iter().any(|(name, _)| argument.get_id() == name);
                assert!(known, "{}: {}", action.get_name(), argument.get_id());
            }
        }
        lesson(original.clone()).debug_assert();
    }
}
