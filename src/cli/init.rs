//! `holdfast init`.

use super::args::Init;
use super::common::{Context, PASSPHRASE_ENV, Places, ask};
use super::output::{Outcome, plain, remark};
use crate::crypto::{Secret, generate_passphrase, passphrase_bits, recovery_encode};
use crate::error::{Error, Exit, Kind, Result};
use crate::region::Regions;
use crate::repo::init::{NewSecret, create};
use crate::store::Prefix;
use crate::unlock::{self, Unlock};
use serde_json::json;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use zeroize::Zeroizing;

/// A passphrase below this can be guessed off-line.
const PASSPHRASE_BITS_MIN: u32 = 60;

pub fn run(context: &Context, args: &Init) -> Result<Outcome> {
    let places = context.places()?;
    let mut secrets = Vec::new();
    let mut generated = None;
    secrets.push((String::new(), first_secret(context, args, &mut generated)?));
    let recovery = if args.no_recovery_key { None } else { Some(Secret::from_bytes(context.env.random()?)) };
    if let Some(key) = &recovery {
        secrets.push(("recovery key".into(), NewSecret::Recovery(key.clone())));
    }
    // Before the repository: nobody must be left with one whose recovery key went nowhere.
    let printed = recovery.map(|key| Zeroizing::new(recovery_encode(&key)));
    if let (Some(path), Some(printed)) = (&args.recovery_key_out, &printed) {
        write_new(path, printed.as_bytes())?;
    }
    let id = make(context, &places, &secrets).inspect_err(|e| {
        if let (Some(path), Kind::Refused) = (&args.recovery_key_out, e.kind()) {
            // Nothing was made, so the key opens nothing; the error that is on its way says what matters.
            let _ = std::fs::remove_file(path);
        }
    })?;
    let mut text = format!("created repository {id} in {} region(s)\n", places.addresses.len());
    for address in &places.addresses {
        text.push_str(&format!("  {:<12} {}\n", address.name, address.place));
    }
    let mut shown = json!({"verb": "init", "repository": id.hex(),
        "regions": places.addresses.iter().map(|a| a.name.clone()).collect::<Vec<_>>()});
    if let Some(words) = &generated {
        text.push_str(&format!("\npassphrase: {}\n", **words));
        shown["passphrase"] = json!(**words);
    }
    if let Some(printed) = printed {
        match &args.recovery_key_out {
            Some(path) => text.push_str(&format!("\nrecovery key written to {}\n", path.display())),
            None => {
                text.push_str(&format!("\nrecovery key, shown only now:\n  {}\n", *printed));
                shown["recovery_key"] = json!(*printed);
            }
        }
        text.push_str("It opens the repository on its own. Keep it on paper, apart from these machines.\n");
    }
    Ok(Outcome::new(Exit::Done, text, shown))
}

/// Creates the folders and the repository.
pub fn make(context: &Context, places: &Places, secrets: &[(String, NewSecret)]) -> Result<crate::base::RepoId> {
    places.addresses.iter().filter_map(|address| address.place.folder()).try_for_each(refuse_strangers)?;
    let regions = Regions::connect(&places.addresses, true, context.handle());
    context.meter(regions.meters());
    refuse_occupied(places, &regions)?;
    create(&regions, &context.env, secrets)
}

/// Places where something is that is no object of a region.
pub fn refuse_occupied(places: &Places, regions: &Regions) -> Result<()> {
    places.addresses.iter().filter_map(|address| address.place.folder()).try_for_each(refuse_strangers)?;
    for (ix, address) in places.addresses.iter().enumerate() {
        if regions.failure(ix).is_none()
            && let Some(stranger) = regions.stranger(ix)?
        {
            let what = format!("the bucket is not empty there: it holds {}", plain(&stranger));
            return Err(Error::new(Kind::Refused, what).at(&address.place).advise("use another prefix"));
        }
    }
    Ok(())
}

/// A folder with somebody's files in it is no empty region.
fn refuse_strangers(folder: &Path) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    let mut ours: Vec<&str> = Prefix::ALL.iter().map(|prefix| prefix.path()).collect();
    ours.extend(["region", Prefix::Probe.path()]);
    for entry in entries.flatten() {
        let name = entry.file_name();
        // A staged mark, `region#1`, is what an `init` left that was killed at its last step.
        let stem = name.to_str().and_then(|name| name.split('#').next()).unwrap_or_default();
        if !ours.contains(&stem) {
            let what = format!("the folder is not empty: it holds {}", entry.file_name().display());
            return Err(Error::new(Kind::Refused, what).at(folder.display()).advise("use an empty folder"));
        }
    }
    Ok(())
}

fn first_secret(context: &Context, args: &Init, generated: &mut Option<Zeroizing<String>>) -> Result<NewSecret> {
    let global = &context.global;
    let given =
        global.passphrase_file.is_some() || global.key_file.is_some() || std::env::var_os(PASSPHRASE_ENV).is_some();
    if global.recovery_key_file.is_some() {
        return Err(
            Error::new(Kind::Config, "init makes its own recovery key").advise("give a passphrase or a key file")
        );
    }
    if args.generate_passphrase && !given {
        return generate(context, generated);
    }
    if given {
        return match context.secret()? {
            Unlock::Passphrase(text) => judged(text, args.weak_passphrase),
            Unlock::KeyFile(bytes) => Ok(NewSecret::KeyFile(Secret::from_bytes(*bytes))),
            Unlock::RecoveryKey(_) => Err(Error::new(Kind::Bug, "a recovery key cannot come here")),
        };
    }
    let text = ask("new passphrase (empty: make one of seven words): ")?;
    if text.is_empty() {
        return generate(context, generated);
    }
    if ask("the same again: ")? != text {
        return Err(Error::new(Kind::Config, "the two passphrases differ"));
    }
    judged(text, args.weak_passphrase)
}

fn generate(context: &Context, generated: &mut Option<Zeroizing<String>>) -> Result<NewSecret> {
    let words = generate_passphrase(&Secret::from_bytes(context.env.random()?));
    *generated = Some(words.clone());
    Ok(NewSecret::Passphrase(words))
}

/// Refuses a passphrase that can be guessed.
pub fn judged(text: Zeroizing<String>, weak_allowed: bool) -> Result<NewSecret> {
    let bits = passphrase_bits(&text);
    if bits < PASSPHRASE_BITS_MIN {
        if !weak_allowed {
            return Err(Error::new(Kind::Refused, format!("this passphrase is too easy to guess (about {bits} bits)"))
                .advise("use --generate-passphrase, a longer one, or --weak-passphrase if you must"));
        }
        remark("warning: this passphrase is easy to guess; whoever has the stored bytes can try for ever");
    }
    let Unlock::Passphrase(text) = unlock::from_passphrase(text)? else {
        return Err(Error::new(Kind::Bug, "not a passphrase"));
    };
    Ok(NewSecret::Passphrase(text))
}

/// Writes a secret to a file that must not exist, readable by its owner only.
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let fail =
        |e: std::io::Error| Error::new(Kind::Config, format!("cannot write the file: {}", e.kind())).at(path.display());
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(fail)?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let sync = || std::fs::File::open(folder)?.sync_all();
    let written = file.write_all(bytes).and_then(|()| file.write_all(b"\n")).and_then(|()| file.sync_all());
    written.and_then(|()| sync()).map_err(|e| {
        // Half a key opens nothing, and would stand in the way of the next try.
        let _ = std::fs::remove_file(path);
        fail(e)
    })
}
