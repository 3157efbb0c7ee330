//! `coordinator schema`, as the program that is typed, on the models of a current botocore.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value};
use tests::harness::{Output, Workspace};

/// The models of which `tests/setup` gets the wheel.
const WHEEL: &str = "botocore-1.44.5-py3-none-any.whl";

/// Operations of services that speak all of AWS's protocols, some with shapes in themselves.
const OPERATIONS: [&str; 44] = [
    "iam.CreatePolicy.output",
    "iam.CreatePolicy.input",
    "iam.CreateUser.output",
    "iam.PutRolePolicy.input",
    "iam.CreateAccessKey.output",
    "sts.AssumeRole.output",
    "sts.GetCallerIdentity.output",
    "ec2.CreateVpcPeeringConnection.output",
    "ec2.AuthorizeSecurityGroupIngress.input",
    "ec2.RunInstances.input",
    "ec2.RunInstances.output",
    "ec2.DescribeInstances.output",
    "s3.PutBucketPolicy.input",
    "s3.PutBucketAcl.input",
    "s3.CreateBucket.input",
    "s3.ListBuckets.output",
    "s3control.CreateAccessPoint.input",
    "lambda.CreateFunction.input",
    "lambda.CreateFunction.output",
    "lambda.AddPermission.input",
    "kms.CreateKey.output",
    "kms.ScheduleKeyDeletion.input",
    "cloudtrail.StopLogging.input",
    "cloudtrail.LookupEvents.output",
    "cloudtrail.PutEventSelectors.input",
    "rds.ModifyDBInstance.input",
    "rds.CreateDBSnapshot.output",
    "dynamodb.PutItem.input",
    "dynamodb.CreateTable.output",
    "ce.GetCostAndUsage.input",
    "organizations.CreatePolicy.output",
    "sns.SetTopicAttributes.input",
    "sqs.CreateQueue.input",
    "cloudfront.CreateDistribution.input",
    "route53.ChangeResourceRecordSets.input",
    "cloudwatch.PutMetricAlarm.input",
    "elbv2.CreateLoadBalancer.output",
    "secretsmanager.PutSecretValue.input",
    "glue.CreateJob.input",
    "wafv2.CreateWebACL.input",
    "lexv2-models.CreateIntent.output",
    "quicksight.CreateDashboard.input",
    "batch.SubmitJob.input",
    "config.PutConfigRule.input",
];

fn wheel() -> Result<PathBuf> {
    let wheel = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.testdeps").join(WHEEL);
    ensure!(wheel.is_file(), "{} is not there; tests/setup gets it", wheel.display());
    Ok(wheel)
}

/// A workspace with the models of some services, as botocore has them in a folder.
fn workspace(services: &[&str]) -> Result<Workspace> {
    let workspace = Workspace::new("{}")?;
    if services.is_empty() {
        return Ok(workspace);
    }
    let script = "import sys, zipfile\n\
        wheel = zipfile.ZipFile(sys.argv[1])\n\
        wheel.extractall('.', [n for n in wheel.namelist() if n.split('/')[2:3] and n.split('/')[2] in sys.argv[2:]])";
    let unpacked = Command::new("python3")
        .args(["-c", script])
        .arg(wheel()?)
        .args(services)
        .current_dir(workspace.path())
        .status()?;
    ensure!(unpacked.success(), "the wheel cannot be unpacked");
    Ok(workspace)
}

async fn schema(workspace: &Workspace, args: &[&str], code: i32) -> Result<Output> {
    let all: Vec<&str> = ["schema"].iter().chain(args).copied().collect();
    let ended = workspace.run(&all).await?.with_code(code)?;
    ensure!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    Ok(ended)
}

/// What is printed for a name, of the wheel.
async fn of_wheel(args: &[&str]) -> Result<String> {
    let workspace = Workspace::new("{}")?;
    let wheel = wheel()?;
    let wheel = wheel.to_str().context("an odd path")?;
    let args: Vec<&str> = ["--models", wheel].iter().chain(args).copied().collect();
    Ok(schema(&workspace, &args, 0).await?.stdout)
}

/// What is said when it refuses.
async fn refused(args: &[&str]) -> Result<String> {
    let workspace = Workspace::new("{}")?;
    let wheel = wheel()?;
    let wheel = wheel.to_str().context("an odd path")?;
    let args: Vec<&str> = ["--models", wheel].iter().chain(args).copied().collect();
    let ended = schema(&workspace, &args, 2).await?;
    ensure!(ended.stdout.is_empty(), "{}", ended.stdout);
    Ok(ended.stderr)
}

/// What the models say by other means than ours.
fn expected(names: &[&str]) -> Result<Map<String, Value>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("sdk/aws_schema.py");
    let said = Command::new("python3").arg(script).arg(wheel()?).args(names).output()?;
    ensure!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    serde_json::from_slice::<Value>(&said.stdout)?.as_object().cloned().context("an object")
}

/// All that the old browser says is said in the same place; the elements of lists and maps, which it names, are here.
fn is_within(old: &Value, new: &Value, place: &str) -> Result<()> {
    let old = old.as_object().with_context(|| format!("{place}: no object"))?;
    let is_leaf = old.get("type").is_some_and(Value::is_string);
    for (name, old) in old {
        let new = new.get(name).with_context(|| format!("{place}.{name} is missing"))?;
        match (is_leaf, name.as_str()) {
            (true, "member" | "key" | "value") => {
                for (said, value) in old.as_object().into_iter().flatten().filter(|(said, _)| *said != "shape") {
                    ensure!(new[format!("${said}")] == *value, "{place}.{name}: {said}");
                }
            }
            (true, _) => ensure!(old == new, "{place}.{name}: {old} is now {new}"),
            (false, _) => is_within(old, new, &format!("{place}.{name}"))?,
        }
    }
    Ok(())
}

#[tokio::test]
async fn shapes_are_those_of_the_models() -> Result<()> {
    let expected = expected(&OPERATIONS)?;
    let (mut compared, mut cycles) = (0, 0);
    for name in OPERATIONS {
        let printed = of_wheel(&[name, "--json"]).await?;
        let shape: Value = serde_json::from_str(&printed).with_context(|| name.to_owned())?;
        ensure!(shape == expected[name]["whole"], "{name} differs from the model:\n{printed}");
        let old = &expected[name]["browser"];
        if old.is_null() {
            cycles += 1;
            ensure!(printed.contains("\"$cycle\""), "{name}: {printed}");
            continue;
        }
        is_within(old, &shape, name)?;
        compared += 1;
    }
    ensure!(compared >= 40 && cycles >= 1, "{compared} compared, {cycles} that the old browser could not tell");
    Ok(())
}

#[tokio::test]
async fn services_and_operations_are_listed() -> Result<()> {
    let text = of_wheel(&[]).await?;
    let services: Vec<String> = serde_json::from_str(&of_wheel(&["--json"]).await?)?;
    assert_eq!(services.len(), 439);
    ensure!(services.is_sorted() && services.iter().any(|name| name == "iam"));
    assert_eq!(text, format!("Services:\n- {}\n", services.join("\n- ")));

    let text = of_wheel(&["iam"]).await?;
    let operations: Vec<String> = serde_json::from_str(&of_wheel(&["iam", "--json"]).await?)?;
    ensure!(operations.is_sorted() && operations.iter().any(|name| name == "CreatePolicy"));
    assert_eq!(text, format!("Operations:\n- {}\n", operations.join("\n- ")));
    Ok(())
}

#[tokio::test]
async fn an_operation_is_described() -> Result<()> {
    let output = of_wheel(&["iam.CreatePolicy.output"]).await?;
    let json = of_wheel(&["iam.CreatePolicy.output", "--json"]).await?;
    ensure!(
        output.starts_with("Description\n------\nCreates a new managed policy for your Amazon Web Services account."),
        "{output}"
    );
    ensure!(output.ends_with(&format!("\n\n\nResult\n------\n{json}")), "{output}");
    ensure!(!output.split("Result").next().context("a description")?.contains("<p>"), "{output}");

    let both: Value = serde_json::from_str(&of_wheel(&["iam.DeleteUser", "--json"]).await?)?;
    ensure!(both["input"]["userName"]["$required"] == true && both["output"].is_null(), "{both}");
    let text = of_wheel(&["iam.DeleteUser"]).await?;
    ensure!(text.contains("\nInput\n------\n{\n") && text.ends_with("\nOutput\n------\nnone\n"), "{text}");
    Ok(())
}

#[tokio::test]
async fn wire_names_cycles_and_required_members_are_marked() -> Result<()> {
    let peering: Value = serde_json::from_str(&of_wheel(&["ec2.CreateVpcPeeringConnection.output", "--json"]).await?)?;
    let blocks = &peering["vpcPeeringConnection"]["accepterVpcInfo"]["cidrBlockSet"];
    assert_eq!(blocks["member"]["$locationName"], "item");
    assert_eq!(blocks["member"]["cidrBlock"]["type"], "string");
    let cost: Value = serde_json::from_str(&of_wheel(&["ce.GetCostAndUsage.input", "--json"]).await?)?;
    assert_eq!(cost["filter"]["not"]["$cycle"], "Expression");
    assert_eq!(cost["timePeriod"]["$required"], true);
    Ok(())
}

#[tokio::test]
async fn services_are_known_by_the_names_in_events() -> Result<()> {
    let plain = of_wheel(&["iam.CreatePolicy.output"]).await?;
    for name in
        ["iam.amazonaws.com.CreatePolicy.output", "IAM.createpolicy.OUTPUT", "iam.CreatePolicy.responseElements"]
    {
        assert_eq!(of_wheel(&[name]).await?, plain, "{name}");
    }
    for (name, meant) in [
        ("iam.amazonaws.com", "iam"),
        ("monitoring.amazonaws.com.PutMetricAlarm", "cloudwatch.PutMetricAlarm"),
        ("states.amazonaws.com.CreateStateMachine", "stepfunctions.CreateStateMachine"),
        ("es.amazonaws.com.CreateDomain.input", "opensearch.CreateDomain.input"),
        ("s3.amazonaws.com.CreateAccessPoint.input", "s3control.CreateAccessPoint.input"),
        ("lambda.amazonaws.com.CreateFunction20150331.input", "lambda.CreateFunction.input"),
        ("lambda.UpdateFunctionConfiguration20150331v2", "lambda.UpdateFunctionConfiguration"),
    ] {
        assert_eq!(of_wheel(&[name]).await?, of_wheel(&[meant]).await?, "{name}");
    }
    let said = refused(&["elasticloadbalancing.amazonaws.com.CreateLoadBalancer"]).await?;
    ensure!(said.contains("may be one of several services; name one of them: elb, elbv2"), "{said}");
    Ok(())
}

#[tokio::test]
async fn what_is_not_there_is_told_with_what_may_be_meant() -> Result<()> {
    for (args, said) in [
        (&["imm"][..], "error: there is no service `imm`; did you mean `iam`?"),
        (&["iam.CreatePolcy"], "error: iam has no operation `CreatePolcy`; did you mean `CreatePolicy`?"),
        (&["iam.Mfa"], "these have it in their names: CreateVirtualMFADevice"),
        (&["iam.CreatePolicy.outptu"], "found `outptu`; did you mean `output`?"),
        (&["iam.CreatePolicy.output.policy"], "nothing is expected after `output`; found `.policy`"),
        (&["iam.DeleteUser.output"], "error: iam.DeleteUser has no output\n"),
        (&["../data/iam"], "there is no service `"),
        (&["iam", "--api-version", "2011-01-01"], "iam has no version `2011-01-01` here; it has 2010-05-08"),
        (&["--rule"], "--rule needs an operation"),
        (&["iam", "--rule"], "--rule needs an operation: iam.OPERATION"),
    ] {
        let stderr = refused(args).await?;
        ensure!(stderr.contains(said), "{args:?}: {stderr}");
    }
    Ok(())
}

#[tokio::test]
async fn versions_of_a_service_are_chosen() -> Result<()> {
    let newest = of_wheel(&["lambda", "--json"]).await?;
    let oldest: Vec<String> =
        serde_json::from_str(&of_wheel(&["lambda", "--json", "--api-version", "2014-11-11"]).await?)?;
    ensure!(oldest.iter().any(|name| name == "UploadFunction") && !newest.contains("UploadFunction"), "{oldest:?}");
    assert_eq!(of_wheel(&["lambda", "--json", "--api_version", "latest"]).await?, newest);
    Ok(())
}

#[tokio::test]
async fn models_are_read_wherever_they_lie() -> Result<()> {
    let wanted = of_wheel(&["iam.CreatePolicy"]).await?;
    let workspace = workspace(&["iam", "sts"])?;
    let at = workspace.path();
    let aws_cli = at.join("aws-cli/v2/2.1/dist/awscli");
    let python = at.join("python/lib/python3.11/site-packages");
    let unpacked = at.join("unpacked/botocore");
    for folder in [&aws_cli, &python, &unpacked] {
        fs::create_dir_all(folder)?;
    }
    let copied = Command::new("cp").args(["-r", "botocore/data"]).arg(&unpacked).current_dir(at).status()?;
    let gunzip = Command::new("gzip").args(["-dr"]).arg(&unpacked).status()?;
    ensure!(copied.success() && gunzip.success(), "the models cannot be copied");
    std::os::unix::fs::symlink(at.join("botocore"), aws_cli.join("botocore"))?;
    std::os::unix::fs::symlink(at.join("botocore"), python.join("botocore"))?;
    std::os::unix::fs::symlink(at.join("aws-cli/v2/2.1"), at.join("aws-cli/v2/current"))?;
    // A wheel without compression, and not at the archive's root.
    let zipped = "import sys, zipfile, pathlib\n\
        archive = zipfile.ZipFile('cli.zip', 'w')\n\
        [archive.write(p, 'aws/dist/awscli/' + str(p)) for p in pathlib.Path('botocore').rglob('*') if p.is_file()]";
    ensure!(Command::new("python3").args(["-c", zipped]).current_dir(at).status()?.success());

    for place in
        ["botocore", "botocore/data", ".", "unpacked/botocore", "aws-cli/v2/2.1/dist", "aws-cli", "python", "cli.zip"]
    {
        let found = schema(&workspace, &["--models", place, "iam.CreatePolicy"], 0).await?.stdout;
        ensure!(found == wanted, "{place}: {found}");
        let services = schema(&workspace, &["--models", place], 0).await?.stdout;
        assert_eq!(services, "Services:\n- iam\n- sts\n", "{place}");
    }
    // The Python that is found first has them, too: a folder on the path, with its packages beside.
    let program = at.join("python/bin/python3");
    fs::create_dir_all(at.join("python/bin"))?;
    fs::write(&program, "")?;
    let path = at.join("python/bin");
    let launch = workspace.coordinator(&["schema", "iam.CreatePolicy"]).env("PATH", path);
    let found = launch.start()?.wait(tests::harness::PATIENCE).await?.with_code(0)?.stdout;
    ensure!(found == wanted, "{found}");
    Ok(())
}

#[tokio::test]
async fn models_that_are_none_are_refused() -> Result<()> {
    let workspace = workspace(&["iam"])?;
    fs::write(workspace.path().join("not.whl"), "no archive")?;
    fs::create_dir(workspace.path().join("empty"))?;
    let broken = workspace.path().join("broken/data/iam/2010-05-08");
    fs::create_dir_all(&broken)?;
    fs::write(broken.join("service-2.json"), "{\"metadata\": {}, \"operations\": []}")?;
    let cut = workspace.path().join("cut/data/iam/2010-05-08");
    fs::create_dir_all(&cut)?;
    let whole = fs::read(workspace.path().join("botocore/data/iam/2010-05-08/service-2.json.gz"))?;
    fs::write(cut.join("service-2.json.gz"), &whole[..whole.len() / 2])?;
    for (place, said) in [
        ("nowhere", "there is no "),
        ("not.whl", "is not a wheel"),
        ("empty", "has no service models; name the folder `botocore`"),
        ("broken", "cannot read the model of iam: invalid type: sequence, expected an object"),
        ("cut", "cannot read "),
    ] {
        let ended = schema(&workspace, &["--models", place, "iam"], 2).await?;
        ensure!(ended.stderr.contains(said) && ended.stdout.is_empty(), "{place}: {}", ended.stderr);
    }
    Ok(())
}

#[tokio::test]
async fn a_rule_to_begin_with_passes_its_own_tests() -> Result<()> {
    let workspace = workspace(&["iam", "lambda", "ce", "quicksight", "s3"])?;
    for (at, name) in [
        "iam.CreatePolicy",
        "lambda.CreateFunction20150331.input",
        "ce.GetCostAndUsage",
        "quicksight.CreateDashboard",
        "s3.PutBucketAcl",
    ]
    .into_iter()
    .enumerate()
    {
        let rule = schema(&workspace, &["--models", ".", name, "--rule"], 0).await?.stdout;
        let file = format!("rule{at}.yaml");
        fs::write(workspace.path().join(&file), &rule)?;
        let tested = workspace.run(&["rules", "test", &file]).await?.with_code(0)?;
        ensure!(tested.stdout.starts_with("1 rule, 4 tests"), "{name}: {}", tested.stdout);
    }
    let rule = fs::read_to_string(workspace.path().join("rule0.yaml"))?;
    ensure!(rule.contains("#   raw.requestParameters.policyName: string, required\n"), "{rule}");
    ensure!(rule.contains("#   raw.responseElements.policy.arn: string\n"), "{rule}");
    ensure!(rule.contains("when: com.action == 'iam:CreatePolicy'\n"), "{rule}");
    Ok(())
}
