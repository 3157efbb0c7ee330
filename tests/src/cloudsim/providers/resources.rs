//! What Resource Manager itself has in a subscription: locations and resource groups.

use serde_json::{Value, json};

use super::{Definition, End, Form, SetSome, Shape};

/// What there is of the world: name, how people read it, geography, latitude, longitude.
pub(in crate::cloudsim) const LOCATIONS: [(&str, &str, &str, &str, &str); 12] = [
    ("eastus", "East US", "United States", "37.3719", "-79.8164"),
    ("eastus2", "East US 2", "United States", "36.6681", "-78.3889"),
    ("westus", "West US", "United States", "37.783", "-122.417"),
    ("westus2", "West US 2", "United States", "47.233", "-119.852"),
    ("northeurope", "North Europe", "Europe", "53.3478", "-6.2597"),
    ("westeurope", "West Europe", "Europe", "52.3667", "4.9"),
    ("uksouth", "UK South", "United Kingdom", "50.941", "-0.799"),
    ("germanywestcentral", "Germany West Central", "Germany", "50.110924", "8.682127"),
    ("southindia", "South India", "India", "12.9822", "80.1636"),
    ("southeastasia", "Southeast Asia", "Asia Pacific", "1.283", "103.833"),
    ("japaneast", "Japan East", "Japan", "35.68", "139.77"),
    ("australiaeast", "Australia East", "Australia", "-33.86", "151.2094"),
];

pub(in crate::cloudsim) const LOCATION: Definition = Definition {
    namespace: "Microsoft.Resources",
    types: &["locations"],
    parent: None,
    form: Form::OnePage,
    id: "/subscriptions/{s}/locations/{n}",
    permission: "Microsoft.Resources/subscriptions/locations/read",
    generate: location,
};

/// The variant of a location is its number.
fn location(shape: &mut Shape<'_>) -> Value {
    let (name, display, geography, latitude, longitude) =
        LOCATIONS.get(shape.variant).copied().unwrap_or(("global", "Global", "Global", "0", "0"));
    json!({
        "id": format!("/subscriptions/{{s}}/locations/{name}"),
        "name": name,
        "type": "Region",
        "displayName": display,
        "regionalDisplayName": format!("({geography}) {display}"),
        "metadata": {
            "regionType": "Physical",
            "regionCategory": if shape.is(1, 4) { "Other" } else { "Recommended" },
            "geography": geography,
            "geographyGroup": geography,
            "latitude": latitude,
            "longitude": longitude,
            "physicalLocation": display,
            "pairedRegion": [],
        },
    })
}

pub(in crate::cloudsim) const RESOURCE_GROUP: Definition = Definition {
    namespace: "Microsoft.Resources",
    types: &["resourceGroups"],
    parent: None,
    form: Form::Pages { token: "%24skiptoken", end: End::Absent },
    id: "/subscriptions/{s}/resourceGroups/rg{n}",
    permission: "Microsoft.Resources/subscriptions/resourceGroups/read",
    generate: resource_group,
};

fn resource_group(shape: &mut Shape<'_>) -> Value {
    let mut group = json!({
        "id": RESOURCE_GROUP.id,
        "name": "rg{n}",
        "type": "Microsoft.Resources/resourceGroups",
        "location": shape.location(),
        "properties": {"provisioningState": if shape.is(6, 7) { "Deleting" } else { "Succeeded" }},
    });
    group.set("tags", shape.tags());
    group.set(
        "managedBy",
        shape.is(4, 5).then_some("/subscriptions/{s}/providers/Microsoft.Solutions/applications/app"),
    );
    group
}
