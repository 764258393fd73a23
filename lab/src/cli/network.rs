//! `lab network`: networks of containers and machines, with docker's words.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::process::ExitCode;

use bollard_stubs::models::{EndpointIpamConfig, EndpointSettings, IpamConfig};
use clap::Subcommand;
use ipnet::IpNet;
use lab::engine::id;
use lab::engine::stored::networks::Wanted;
use lab::engine::stored::{Engine, Filters, Scope};
use serde_json::{Value, json};

use super::style::{HEADING, print_error};
use super::{flags, prune, template};

/// Make, list and remove networks, and put containers and machines into them.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Create(Create),
    #[command(visible_alias = "list")]
    Ls(List),
    #[command(visible_alias = "remove")]
    Rm(Remove),
    Inspect(Inspect),
    Connect(Connect),
    Disconnect(Disconnect),
    Prune(Prune),
}

/// Make a network; prints its id. Containers and machines in it find each other by name
#[derive(Debug, clap::Args)]
struct Create {
    /// Its kind; there is one
    #[arg(short, long, default_value = "bridge", value_parser = ["bridge"])]
    driver: String,
    /// Nothing leaves it: no way out to the world
    #[arg(long)]
    internal: bool,
    /// Its addresses, such as 172.28.0.0/16; one of IPv6 with --ipv6 as well. One that nobody uses where not given
    #[arg(long, value_name = "CIDR")]
    subnet: Vec<String>,
    /// Give containers addresses of this part of the subnet
    #[arg(long, value_name = "CIDR")]
    ip_range: Vec<String>,
    /// The bridge's own address: by default the first of the subnet
    #[arg(long, value_name = "IP")]
    gateway: Vec<String>,
    /// An address that something else has: it is given to no container
    #[arg(long, value_name = "NAME=IP")]
    aux_address: Vec<String>,
    /// Give containers IPv6 addresses as well
    #[arg(long)]
    ipv6: bool,
    /// An option of docker's driver bridge, such as com.docker.network.driver.mtu=1400
    #[arg(short, long, value_name = "NAME=VALUE")]
    opt: Vec<String>,
    /// Mark the network
    #[arg(long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,
    /// Its name
    name: String,
}

/// List networks
#[derive(Debug, clap::Args)]
struct List {
    /// Only the ids
    #[arg(short, long)]
    quiet: bool,
    /// Do not shorten ids
    #[arg(long)]
    no_trunc: bool,
    /// Only those that fit: name, id, label, driver, scope, type=custom|builtin, dangling
    #[arg(short, long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
    /// A Go template for each, such as '{{.Name}}: {{.Driver}}', or json
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
}

/// Remove networks that nobody is in
#[derive(Debug, clap::Args)]
struct Remove {
    /// That one is not there is no error
    #[arg(short, long)]
    force: bool,
    /// Names or ids
    #[arg(required = true)]
    networks: Vec<String>,
}

/// Print everything about networks, as JSON
#[derive(Debug, clap::Args)]
struct Inspect {
    /// A Go template for each, such as '{{.Internal}}'
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Names or ids
    #[arg(required = true)]
    networks: Vec<String>,
}

/// Put a container into a network, also one that runs; a machine only before its start
#[derive(Debug, clap::Args)]
struct Connect {
    /// A further name by which others find it there
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,
    /// Its address there
    #[arg(long, value_name = "IP")]
    ip: Option<String>,
    /// Its IPv6 address there
    #[arg(long, value_name = "IP")]
    ip6: Option<String>,
    /// A name that it alone knows another container by
    #[arg(long, value_name = "CONTAINER:ALIAS")]
    link: Vec<String>,
    network: String,
    container: String,
}

/// Take a container out of a network
#[derive(Debug, clap::Args)]
struct Disconnect {
    network: String,
    container: String,
}

/// Remove the networks that no container is in
#[derive(Debug, clap::Args)]
struct Prune {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Only those that fit: label=KEY[=VALUE], label!=KEY[=VALUE], until=TIME (10m, 24h or a date)
    #[arg(long, value_name = "NAME=VALUE")]
    filter: Vec<String>,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Create(args) => create(&args),
        Command::Ls(args) => list(&args),
        Command::Rm(args) => remove(&args),
        Command::Inspect(args) => inspect(&args),
        Command::Connect(args) => {
            let engine = Engine::open()?;
            let network = engine.network(&args.network)?;
            let record = engine.find(&args.container)?;
            let address =
                EndpointIpamConfig { ipv4_address: args.ip, ipv6_address: args.ip6, link_local_ips: None };
            let settings = EndpointSettings {
                aliases: Some(args.alias),
                links: Some(args.link).filter(|links| !links.is_empty()),
                ipam_config: (address != EndpointIpamConfig::default()).then_some(address),
                ..EndpointSettings::default()
            };
            engine.connect_network(&network, &record, &settings)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Disconnect(args) => {
            let engine = Engine::open()?;
            let network = engine.network(&args.network)?;
            engine.disconnect_network(&network, &engine.find(&args.container)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Prune(args) => prune(&args),
    }
}

fn create(args: &Create) -> anyhow::Result<ExitCode> {
    let wanted = Wanted {
        name: args.name.clone(),
        labels: args.label.iter().map(|text| flags::label(text)).collect(),
        options: args.opt.iter().map(|text| flags::label(text)).collect(),
        internal: args.internal,
        ipv6: args.ipv6,
        pools: pools(args)?,
        ..Wanted::default()
    };
    let network = Engine::open()?.create_network(&wanted)?;
    if let Some(warning) = network.warning() {
        anstream::eprintln!("lab: {HEADING}warning:{HEADING:#} {warning}");
    }
    super::print(&format!("{}\n", network.id))?;
    Ok(ExitCode::SUCCESS)
}

/// The subnets, each with the range, gateway and taken addresses that lie in it.
fn pools(args: &Create) -> anyhow::Result<Vec<IpamConfig>> {
    let mut pools: Vec<(IpNet, IpamConfig)> = Vec::new();
    for text in &args.subnet {
        let net: IpNet = text
            .parse()
            .map_err(|_| anyhow::anyhow!("--subnet {text}: use ADDRESS/BITS, such as 172.28.0.0/16"))?;
        pools.push((net, IpamConfig { subnet: Some(text.clone()), ..IpamConfig::default() }));
    }
    let mut place = |flag: &str, text: &str, put: &dyn Fn(&mut IpamConfig, String)| {
        let address = text.split_once('=').map_or(text, |(_, address)| address);
        let first = address.split('/').next().unwrap_or_default().parse::<IpAddr>();
        let first = first.map_err(|_| anyhow::anyhow!("{flag} {text}: no address"))?;
        let pool = pools.iter_mut().find(|(net, _)| net.contains(&first));
        let (_, pool) = pool.ok_or_else(|| anyhow::anyhow!("{flag} {text}: no --subnet contains it"))?;
        put(pool, text.to_owned());
        anyhow::Ok(())
    };
    for text in &args.ip_range {
        place("--ip-range", text, &|pool, text| pool.ip_range = Some(text))?;
    }
    for text in &args.gateway {
        place("--gateway", text, &|pool, text| pool.gateway = Some(text))?;
    }
    for text in &args.aux_address {
        place("--aux-address", text, &|pool, text| {
            let (name, address) = text.split_once('=').unwrap_or((text.as_str(), text.as_str()));
            let taken = pool.auxiliary_addresses.get_or_insert_default();
            taken.insert(name.to_owned(), address.to_owned());
        })?;
    }
    Ok(pools.into_iter().map(|(_, pool)| pool).collect())
}

fn list(args: &List) -> anyhow::Result<ExitCode> {
    let networks = Engine::open()?.list_networks(&Filters::from_words(&args.filter)?)?;
    let text = |network: &Value, key: &str| network[key].as_str().unwrap_or_default().to_owned();
    let rows: Vec<Value> = networks
        .iter()
        .map(|network| {
            let full = text(network, "Id");
            let labels = network["Labels"].as_object().into_iter().flatten();
            let labels: Vec<String> =
                labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
            // Docker's client prints these two as words.
            let word = |key: &str| network[key].as_bool().unwrap_or(false).to_string();
            json!({
                "ID": if args.no_trunc { full.as_str() } else { id::short(&full) }, "Name": network["Name"],
                "Driver": network["Driver"], "Scope": network["Scope"], "CreatedAt": network["Created"],
                "Internal": word("Internal"), "IPv6": word("EnableIPv6"), "Labels": labels.join(","),
            })
        })
        .collect();
    let mut out = String::new();
    match args.format.as_deref() {
        _ if args.quiet => out.extend(rows.iter().map(|row| text(row, "ID") + "\n")),
        Some("json") => out.extend(rows.iter().map(|row| format!("{row}\n"))),
        Some(format) => {
            for row in &rows {
                let _ = writeln!(out, "{}", template::fill(format, row)?);
            }
        }
        None => {
            let names = rows.iter().map(|row| text(row, "Name").chars().count());
            let (name, id) = (names.max().unwrap_or(0).max(4), if args.no_trunc { 64 } else { 12 });
            let _ =
                writeln!(out, "{HEADING}{:id$}   {:name$}   DRIVER   SCOPE{HEADING:#}", "NETWORK ID", "NAME");
            for row in &rows {
                let [own, named, driver, scope] = ["ID", "Name", "Driver", "Scope"].map(|key| text(row, key));
                let _ = writeln!(out, "{own:id$}   {named:name$}   {driver:6}   {scope}");
            }
        }
    }
    super::print(&out)?;
    Ok(ExitCode::SUCCESS)
}

fn remove(args: &Remove) -> anyhow::Result<ExitCode> {
    let engine = Engine::open()?;
    let mut code = ExitCode::SUCCESS;
    for name in &args.networks {
        // As docker: the others are removed all the same.
        match engine.network(name).and_then(|network| engine.remove_network(&network)) {
            Ok(()) => super::print(&format!("{name}\n"))?,
            Err(lab::engine::Error::Missing { .. }) if args.force => {}
            Err(error) => {
                print_error(&error.to_string());
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

fn inspect(args: &Inspect) -> anyhow::Result<ExitCode> {
    let engine = Engine::open()?;
    let all: Result<Vec<Value>, _> = args.networks.iter().map(|name| engine.inspect_network(name)).collect();
    let all = all?;
    let text = match &args.format {
        None => serde_json::to_string_pretty(&all)?,
        Some(format) => {
            let filled: anyhow::Result<Vec<String>> =
                all.iter().map(|value| template::fill(format, value)).collect();
            filled?.join("\n")
        }
    };
    super::print(&(text + "\n"))?;
    Ok(ExitCode::SUCCESS)
}

fn prune(args: &Prune) -> anyhow::Result<ExitCode> {
    let filters = Filters::from_words(&args.filter)?;
    // Before anyone is asked.
    Scope::of(&filters, &[])?;
    if !args.force && !prune::agreed("all networks that no container is in")? {
        return Ok(ExitCode::FAILURE);
    }
    let removed = Engine::open()?.prune_networks(&filters)?;
    let text: String = removed.iter().flat_map(|name| ["Deleted network: ", name, "\n"]).collect();
    super::print(&text)?;
    Ok(ExitCode::SUCCESS)
}
