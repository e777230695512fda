package k8s

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/yaml"
	strict "sigs.k8s.io/yaml"
)

// kinds are the types that manifests are decoded into.
var kinds = map[string]func() metav1.Object{
	"v1/ConfigMap":      func() metav1.Object { return &corev1.ConfigMap{} },
	"v1/Service":        func() metav1.Object { return &corev1.Service{} },
	"apps/v1/DaemonSet": func() metav1.Object { return &appsv1.DaemonSet{} },
	"batch/v1/Job":      func() metav1.Object { return &batchv1.Job{} },
}

// decode reads the documents of a file: a field that the API does not have, or of
// another type, is an error, and so is a name or a selector that does not fit.
func decode(data []byte) (out []metav1.Object, err error) {
	d := yaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(data)))
	defer d.Close()
	for {
		buf := make([]byte, 1<<20)
		n, err := d.Read(buf)
		if errors.Is(err, io.EOF) {
			return out, nil
		} else if err != nil {
			return nil, err
		}
		var t metav1.TypeMeta
		if err := strict.Unmarshal(buf[:n], &t); err != nil {
			return nil, err
		}
		kind := t.APIVersion + "/" + t.Kind
		f := kinds[kind]
		if f == nil {
			return nil, fmt.Errorf("no kind %q is known to this test", kind)
		}
		o := f()
		if err := strict.UnmarshalStrict(buf[:n], o); err != nil {
			return nil, fmt.Errorf("%s: %w", kind, err)
		}
		if l := validation.IsDNS1123Subdomain(o.GetName()); len(l) > 0 {
			return nil, fmt.Errorf("%s: name %q: %v", kind, o.GetName(), l)
		}
		if err := podError(o); err != nil {
			return nil, fmt.Errorf("%s %s: %w", kind, o.GetName(), err)
		}
		out = append(out, o)
	}
}

// podError is what the API server would say about the pods of o.
func podError(o metav1.Object) error {
	var pod corev1.PodTemplateSpec
	switch x := o.(type) {
	case *appsv1.DaemonSet:
		pod = x.Spec.Template
		s, err := metav1.LabelSelectorAsSelector(x.Spec.Selector)
		if err != nil {
			return err
		}
		if s.Empty() || !s.Matches(labels.Set(pod.Labels)) {
			return errors.New("the selector does not choose its own pods")
		}
	case *batchv1.Job:
		pod = x.Spec.Template
		if p := pod.Spec.RestartPolicy; p != corev1.RestartPolicyNever && p != corev1.RestartPolicyOnFailure {
			return fmt.Errorf("restartPolicy %q of a Job", p)
		}
	default:
		return nil
	}
	volumes := map[string]bool{}
	for _, v := range pod.Spec.Volumes {
		volumes[v.Name] = true
	}
	if len(pod.Spec.Containers) == 0 {
		return errors.New("no container")
	}
	for _, c := range pod.Spec.Containers {
		if c.Image == "" || len(validation.IsDNS1123Label(c.Name)) > 0 {
			return fmt.Errorf("container %q, image %q", c.Name, c.Image)
		}
		for _, m := range c.VolumeMounts {
			if !volumes[m.Name] {
				return fmt.Errorf("mounts %q, which is no volume", m.Name)
			}
		}
		for name, limit := range c.Resources.Limits {
			if l := validation.IsQualifiedName(string(name)); len(l) > 0 {
				return fmt.Errorf("resource %q: %v", name, l)
			}
			// Kubernetes has no overcommitment of the resources of device plugins.
			if r, ok := c.Resources.Requests[name]; ok && strings.Contains(string(name), "/") && r.Cmp(limit) != 0 {
				return fmt.Errorf("resource %s: request %v and limit %v must be equal", name, &r, &limit)
			}
		}
	}
	return nil
}

func TestManifests(t *testing.T) {
	files, err := filepath.Glob("*.yaml")
	if err != nil || len(files) < 3 {
		t.Fatal(files, err)
	}
	var all []metav1.Object
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		l, err := decode(data)
		if err != nil || len(l) == 0 {
			t.Errorf("%s: %d objects, %v", f, len(l), err)
		}
		all = append(all, l...)
	}
	// The resource that the program asks for is the one that the plugin offers.
	offered, asked := map[string]bool{}, 0
	for _, o := range all {
		if c, ok := o.(*corev1.ConfigMap); ok {
			var conf struct {
				PeriodicUpdateInterval int `json:"periodicUpdateInterval"`
				ConfigList             []struct {
					ResourceName   string `json:"resourceName"`
					ResourcePrefix string `json:"resourcePrefix"`
					RdmaHcaMax     int    `json:"rdmaHcaMax"`
					Selectors      struct {
						Vendors, DeviceIDs, Drivers, IfNames, LinkTypes []string
					} `json:"selectors"`
				} `json:"configList"`
			}
			d := json.NewDecoder(strings.NewReader(c.Data["config.json"]))
			d.DisallowUnknownFields()
			if err := d.Decode(&conf); err != nil {
				t.Fatal(err)
			}
			for _, x := range conf.ConfigList {
				offered[x.ResourcePrefix+"/"+x.ResourceName] = x.RdmaHcaMax > 0
			}
		}
	}
	for _, o := range all {
		if d, ok := o.(*appsv1.DaemonSet); ok {
			for _, c := range d.Spec.Template.Spec.Containers {
				for name := range c.Resources.Limits {
					if strings.HasPrefix(string(name), "rdma/") {
						asked++
						if !offered[string(name)] {
							t.Errorf("%s: nobody offers %s", o.GetName(), name)
						}
					}
				}
			}
		}
	}
	if asked == 0 {
		t.Error("no program asks for a device")
	}
}

func TestDecodeObjects(t *testing.T) {
	const good = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: a}\nspec: {template: {spec: {restartPolicy: Never, containers: [{name: a, image: b}]}}}\n"
	if l, err := decode([]byte(good + "---\n" + good)); err != nil || len(l) != 2 {
		t.Error(l, err)
	}
	for _, x := range [][2]string{
		{"restartPolicy: Never", "restartPolicy: Always"}, {"image: b", "imgae: b"}, {"name: a}", "name: A_}"},
		{"batch/v1", "batch/v9"}, {"image: b", "image: b, volumeMounts: [{name: x, mountPath: /x}]"}, {"image: b", "image: [b]"},
		{"image: b", "image: b, resources: {limits: {rdma/x: 1}, requests: {rdma/x: 2}}"}, {"containers: [{name: a, image: b}]", "containers: []"},
	} {
		if _, err := decode([]byte(strings.Replace(good, x[0], x[1], 1))); err == nil {
			t.Errorf("%s was taken", x[1])
		}
	}
}
